"""`templates`: pushes templates from files, shows and previews them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from cyclopts import Parameter

from notifier.cli.asking import is_wanted
from notifier.cli.environment import api_url
from notifier.cli.failures import CommandFailed
from notifier.cli.messages import print_message
from notifier.cli.options import AsJson, DryRun, Tenant, Url, Yes, of_tenant
from notifier.cli.paging import read_all
from notifier.cli.running import run_async
from notifier.domain.errors import ConfigError
from notifier.domain.templates import TemplateRef

if TYPE_CHECKING:
    from notifier.api.templating.documents import Template
    from notifier.cli.client import Client
    from notifier.cli.template_files import Document

_PATH: Final = "/v1/templates"
_PREVIEW: Final = "/v1/notifications/preview"
_RECIPIENTS: Final[Mapping[str, str]] = {"email": "ada@example.com", "sms": "+15005550006"}
"""Whom a preview is for, if nobody is named."""


class _Change(NamedTuple):
    name: str
    newest: int
    """0: there is no version yet."""
    files: list[str]
    document: Document

    def __str__(self) -> str:
        if not self.files:
            return f"{self.name}  unchanged, version {self.newest}"
        return f"{self.name}  version {self.newest + 1}: {' '.join(self.files)}"


def push_templates(
    folder: Path,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    tenant: Tenant = None,
    url: Url = None,
) -> int:
    """Save the templates of a folder that differ from their newest version.

    Each template is a folder: order-shipped/en.email.subject, en.email.txt, en.email.html.
    """
    from notifier.cli.template_files import read_folders  # noqa: PLC0415 start-up time

    documents, of = read_folders(folder), of_tenant(tenant)
    return run_async(_push(documents, api_url(url), of, dry_run=dry_run, yes=yes))


def list_templates(*, tenant: Tenant = None, url: Url = None, json: AsJson = False) -> None:
    """Show the newest version of every template."""
    run_async(_list(api_url(url), of_tenant(tenant), as_json=json))


def show_templates(
    template: str, *, tenant: Tenant = None, url: Url = None, json: AsJson = False
) -> None:
    """Show the texts of a template: the newest version, or NAME@VERSION."""
    run_async(_show(_ref(template), api_url(url), of_tenant(tenant), as_json=json))


def preview_templates(
    template: str,
    *,
    channel: Annotated[str, Parameter(name=["--channel", "-c"])] = "email",
    recipient: Annotated[
        str | None, Parameter(name=["--recipient", "--to", "-t"], show_default=False)
    ] = None,
    var: Annotated[
        dict[str, str] | None, Parameter(help="A variable: --var.name Ada.", show_default=False)
    ] = None,
    variables: Annotated[
        Path | None, Parameter(help="A file with all variables as JSON.", show_default=False)
    ] = None,
    locale: Annotated[str | None, Parameter(show_default=False)] = None,
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Show what a recipient would get."""
    to = recipient or _RECIPIENTS.get(channel)
    if to is None:
        raise ConfigError(f"--recipient is needed for a preview on {channel}")
    submit = {
        "channel": channel,
        "recipient": to,
        "template": str(_ref(template)),
        "variables": template_variables(var, variables),
        **({} if locale is None else {"locale": locale}),
        **of_tenant(tenant),
    }
    run_async(preview(api_url(url), submit, as_json=json))


def template_variables(var: Mapping[str, str] | None, path: Path | None) -> Mapping[str, object]:
    """Return the variables of the options: those of the file, and over them the single ones."""
    import msgspec  # noqa: PLC0415 start-up time

    if path is None:
        return dict(var or {})
    try:
        decoded = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(
            f"--variables: got {str(path)!r}, expected a file: {error.strerror}"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"--variables: {path}: expected a JSON object: {error}") from error
    return {**decoded, **(var or {})}


async def preview(url: str, submit: Mapping[str, object], *, as_json: bool) -> None:
    """Print what a submit would send."""
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.templating.documents import Preview  # noqa: PLC0415
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        shown = await client.post(_PREVIEW, submit, Preview)
    if as_json:
        print_json(shown)
        return
    of = f", {shown.template} in {shown.locale}" if shown.template else ""
    segments = f", {shown.segments} segments of {shown.encoding}" if shown.segments else ""
    print(f"{shown.channel} to {shown.recipient}{of}, {shown.size_bytes:,} bytes{segments}")
    if shown.suppressed_by:
        print(f"would not be sent: suppression {shown.suppressed_by}")
    if shown.quiet_until_at:
        print(f"would wait for the end of quiet hours: {msgspec.to_builtins(shown.quiet_until_at)}")
    for name in ("subject", "body", "html", "data"):
        part = getattr(shown, name)
        if part is not None:
            print(f"--- {name}\n{part}")


def _ref(text: str) -> TemplateRef:
    try:
        return TemplateRef.parse(text)
    except ValueError as error:
        raise ConfigError(f"template: {error}") from error


async def _push(
    documents: Mapping[str, Document],
    url: str,
    of: Mapping[str, str],
    *,
    dry_run: bool,
    yes: bool,
) -> int:
    from notifier.api.templating.documents import Template  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    async with open_client(url) as client:
        newest = await _newest(client, of)
        changes = [
            await _change(client, TemplateRef(name, newest.get(name, 0)), document, of)
            for name, document in documents.items()
        ]
        for change in changes:
            print(change)
        changed = [change for change in changes if change.files]
        if dry_run or not changed:
            return 0
        if not is_wanted(len(changed), "templates", "Save", yes=yes):
            return 0
        failed = 0
        for change in changed:
            try:
                path = f"{_PATH}/{change.name}/versions"
                saved = await client.post(path, {**change.document, **of}, Template)
                print(f"{saved.name}@{saved.version} saved")
            except CommandFailed as error:
                print_message(f"{change.name}: {error}")
                failed += 1
    return 1 if failed else 0


async def _newest(client: Client, of: Mapping[str, str]) -> Mapping[str, int]:
    from notifier.api.templating.documents import Template  # noqa: PLC0415 start-up time

    templates = await read_all(client, _PATH, Template, of)
    return {template.name: template.version for template in templates}


async def _change(
    client: Client, newest: TemplateRef, document: Document, of: Mapping[str, str]
) -> _Change:
    from notifier.cli.template_files import changed_files  # noqa: PLC0415 start-up time

    before = await _stored(client, newest, of) if newest.version else None
    return _Change(newest.name, newest.version or 0, changed_files(before, document), document)


async def _stored(client: Client, ref: TemplateRef, of: Mapping[str, str]) -> Document:
    document = await client.get_raw(f"{_PATH}/{ref.name}/versions/{ref.version}", of)
    if not isinstance(document, dict) or "locales" not in document:
        raise CommandFailed("the API returned an unexpected response")
    return document


async def _list(url: str, of: Mapping[str, str], *, as_json: bool) -> None:
    from notifier.api.templating.documents import (  # noqa: PLC0415 start-up time
        Template,
        TemplatePage,
    )
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_client(url) as client:
        page = TemplatePage(await read_all(client, _PATH, Template, of))
    if as_json:
        print_json(page)
        return
    print_table(("name", "version", "channels", "saved", "by"), map(_row, page.items))


def _row(template: Template) -> tuple[object, ...]:
    return (
        template.name,
        template.version,
        " ".join(template.channels),
        template.created_at,
        template.actor,
    )


async def _show(ref: TemplateRef, url: str, of: Mapping[str, str], *, as_json: bool) -> None:
    from notifier.api.templating.documents import Template  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415
    from notifier.cli.template_files import texts_of  # noqa: PLC0415

    async with open_client(url) as client:
        if ref.version is None:
            newest = await client.get(f"{_PATH}/{ref.name}", Template, of)
            ref = TemplateRef(ref.name, newest.version)
        document = await _stored(client, ref, of)
    if as_json:
        print_json(document)
        return
    print(ref)
    for name, text in texts_of(document).items():
        print(f"--- {name}\n{text}")
