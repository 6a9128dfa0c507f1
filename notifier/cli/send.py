"""`send`: submits one notification, and waits until it is final if that is wanted."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Tenant, Url, of_tenant
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.cli.templates import preview as show_preview
from notifier.cli.templates import template_variables
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.responses import Accepted
    from notifier.cli.client import Client

_PATH: Final = "/v1/notifications"
_BLOBS: Final = "/v1/blobs"
_MAX_INLINE_BYTES: Final = 64 * 1024
"""A larger file is uploaded: then the same file is stored and transferred once."""


def send(
    *,
    channel: Annotated[str, Parameter(name=["--channel", "-c"], help="email, sms, push, ...")],
    recipient: Annotated[
        str,
        Parameter(name=["--recipient", "--to", "-t"], help="Address, phone number or token."),
    ],
    priority: Literal["high", "medium", "low"] = "medium",
    subject: Annotated[
        str | None, Parameter(name=["--subject", "-s"], help="Subject or title.")
    ] = None,
    body: Annotated[str | None, Parameter(name=["--body", "-b"], help="Text.")] = None,
    html: Annotated[str | None, Parameter(help="Text as HTML.")] = None,
    template: Annotated[
        str | None, Parameter(help="In place of the texts: NAME or NAME@VERSION.")
    ] = None,
    var: Annotated[
        dict[str, str] | None, Parameter(help="A variable of the template: --var.KEY VALUE.")
    ] = None,
    variables: Annotated[Path | None, Parameter(help="A file with all variables as JSON.")] = None,
    locale: Annotated[str | None, Parameter(help="The recipient's locale: en, de-AT.")] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="Sender: Shop <shop@example.com>, or a number.")
    ] = None,
    reply_to: Annotated[str | None, Parameter(help="Where replies to an email go.")] = None,
    attach: Annotated[
        list[Path] | None, Parameter(negative="", help="A file of an email; more than once.")
    ] = None,
    data: Annotated[
        dict[str, str] | None, Parameter(help="Data of a push: --data.KEY VALUE.")
    ] = None,
    metadata: Annotated[
        dict[str, str] | None,
        Parameter(help="Your own data, stored with it: --metadata.KEY VALUE."),
    ] = None,
    ttl: Annotated[
        Span | None, Parameter(help="It expires after this: 90s, 15m, 1h30m.", show_default=False)
    ] = None,
    expires_at: Annotated[
        str | None, Parameter(help="In place of --ttl: when it expires (RFC 3339).")
    ] = None,
    send_at: Annotated[str | None, Parameter(help="Not before this instant (RFC 3339).")] = None,
    time_zone: Annotated[
        str | None, Parameter(help="The recipient's, for quiet hours: Europe/Berlin.")
    ] = None,
    tag: Annotated[
        str | None, Parameter(help="Your label of a campaign or a batch, to find it by.")
    ] = None,
    topic: Annotated[str | None, Parameter(help="What the recipient can unsubscribe from.")] = None,
    collapse_key: Annotated[
        str | None, Parameter(help="It replaces an earlier one with this key that still waits.")
    ] = None,
    idempotency_key: Annotated[
        str | None, Parameter(help="A repeat with the same key sends nothing.")
    ] = None,
    tenant: Tenant = None,
    preview: Annotated[
        bool, Parameter(negative="", help="Only show what the recipient would get.")
    ] = False,
    wait: Annotated[bool, Parameter(negative="", help="Wait until it is final.")] = False,
    timeout: Annotated[Span, Parameter(help="Time-out of --wait.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Submit one notification."""
    content = {
        "subject": subject,
        "body": body,
        "html": html,
        "data": data,
        "from": from_,
        "reply_to": reply_to,
    }
    submit: dict[str, object] = {
        "channel": channel,
        "priority": priority,
        "recipient": recipient,
        "content": _without_none(content),
        **_without_none(
            {
                "template": template,
                "variables": template_variables(var, variables) if var or variables else None,
                "locale": locale,
                "ttl_s": ttl,
                "expires_at": expires_at,
                "send_at": send_at,
                "time_zone": time_zone,
                "metadata": metadata,
                "tag": tag,
                "topic": topic,
                "collapse_key": collapse_key,
                "idempotency_key": idempotency_key,
            }
        ),
        **of_tenant(tenant),
    }
    files = [_read(path) for path in attach or ()]
    if template is not None and not submit["content"] and not files:
        del submit["content"]
    if preview:
        run_async(show_preview(api_url(url), submit, as_json=json))
        return 0
    wait_s = timeout if wait else None
    return run_async(_send(api_url(url), submit, files, wait_s, as_json=json))


class _File(NamedTuple):
    name: str
    content_type: str
    data: bytes


def _read(path: Path) -> _File:
    """Read a file. Raises ConfigError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"--attach: got {str(path)!r}, expected a file: {error.strerror}"
        raise ConfigError(msg) from error
    return _File(path.name, guess_type(path.name)[0] or "application/octet-stream", data)


async def _attachment(client: Client, file: _File, tenant: str | None) -> Mapping[str, str]:
    """Return the document of a file. A large one is uploaded first."""
    document = {"filename": file.name, "content_type": file.content_type}
    if len(file.data) <= _MAX_INLINE_BYTES:
        return {**document, "data": b64encode(file.data).decode()}
    from notifier.api.responses import Blob  # noqa: PLC0415 start-up time

    blob = await client.upload(_BLOBS, file.data, file.content_type, Blob, of_tenant(tenant))
    return {**document, "blob": blob.id}


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


async def _send(
    url: str,
    submit: Mapping[str, Any],
    files: Sequence[_File],
    timeout_s: float | None,
    *,
    as_json: bool,
) -> int:
    from notifier.api.responses import Accepted  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415
    from notifier.cli.status import wait_until_final  # noqa: PLC0415

    async with open_client(url) as client:
        if files:
            tenant = submit.get("tenant")
            submit["content"]["attachments"] = [
                await _attachment(client, file, tenant) for file in files
            ]
        accepted = await client.post(_PATH, submit, Accepted)
        if timeout_s is None:
            print_json(accepted) if as_json else print(_accepted_line(accepted))
            return 0
        if not as_json:
            print(_accepted_line(accepted), flush=True)
        return await wait_until_final(client, str(accepted.id), timeout_s, as_json=as_json)


def _accepted_line(accepted: Accepted) -> str:
    segments = f", {accepted.segments} segments" if accepted.segments else ""
    reason = f", {accepted.reason}" if accepted.reason else ""
    return f"{accepted.id} {accepted.status} on {accepted.queue}{segments}{reason}"
