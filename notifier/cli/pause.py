"""`pause`, `resume` and `pauses`: stops a queue, channel, provider, tenant or tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span, span_words
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.responses import DeletedPause, Pause

_PATH: Final = "/v1/pauses"
Target = Annotated[
    str | None, Parameter(help="A queue (email.low) or a channel (email).", show_default=False)
]
ProviderName = Annotated[
    str | None, Parameter(name="--provider", help="A provider instead of a queue or channel.")
]
TagName = Annotated[
    str | None,
    Parameter(name="--tag", help="A tag instead: what has it waits on every queue."),
]
TenantName = Annotated[
    str | None,
    Parameter(name="--tenant", help="A tenant instead: its notifications wait on every queue."),
]


def pause(
    target: Target = None,
    *,
    provider: ProviderName = None,
    tenant: TenantName = None,
    tag: TagName = None,
    span: Annotated[
        Span | None,
        Parameter(
            name="--for",
            help="Such as 90s, 15m or 1h30m.",
            show_default=lambda _: "until resumed",
        ),
    ] = None,
    note: Annotated[
        str | None, Parameter(name="--note", help="Why; stored with the pause.", show_default=False)
    ] = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Pause sends. An existing pause gets the new note and end."""
    scope = _scope(target, provider, tenant, tag)
    run_async(_pause(api_url(url), scope, {"note": note, "for_s": span}, as_json=json))


def resume(
    target: Target = None,
    *,
    provider: ProviderName = None,
    tenant: TenantName = None,
    tag: TagName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Resume a queue, channel, provider or tenant. A wider pause that covers it remains."""
    run_async(_resume(api_url(url), _scope(target, provider, tenant, tag), as_json=json))


def pauses(*, url: Url = None, json: AsJson = False) -> None:
    """Show every pause: since when, until when, and why."""
    run_async(_pauses(api_url(url), as_json=json))


def _scope(target: str | None, provider: str | None, tenant: str | None, tag: str | None) -> Scope:
    kind = ScopeKind.QUEUE if target and "." in target else ScopeKind.CHANNEL
    named = {
        kind: target,
        ScopeKind.PROVIDER: provider,
        ScopeKind.TENANT: tenant,
        ScopeKind.TAG: tag,
    }
    scopes = [Scope(kind, name) for kind, name in named.items() if name]
    if len(scopes) == 1:
        return scopes[0]
    raise ConfigError(
        "expected one target: a queue (email.low), a channel (email), --provider NAME, "
        "--tenant NAME or --tag NAME"
    )


def _path(scope: Scope) -> str:
    return f"{_PATH}/{scope.kind}/{quote(scope.name, safe='')}"


async def _pause(url: str, scope: Scope, body: dict[str, object], *, as_json: bool) -> None:
    from notifier.api.responses import Pause  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        pause = await client.put(_path(scope), body, Pause)
    print_json(pause) if as_json else print(_paused_line(pause))


async def _resume(url: str, scope: Scope, *, as_json: bool) -> None:
    from notifier.api.responses import DeletedPause  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        deleted = await client.delete_into(_path(scope), DeletedPause)
    print_json(deleted) if as_json else print(_resumed_line(scope, deleted))


async def _pauses(url: str, *, as_json: bool) -> None:
    from notifier.api.responses import PausePage  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_client(url) as client:
        if as_json:
            print_json(await client.get_raw(_PATH))
            return
        page = await client.get(_PATH, PausePage)
    rows = [
        (
            pause.kind,
            pause.name,
            pause.paused_at,
            pause.expires_at,
            pause.note,
            "" if pause.matches else "nothing has this name",
        )
        for pause in page.items
    ]
    print_table(["kind", "name", "since", "until", "note", ""], rows)


def _paused_line(pause: Pause) -> str:
    duration = "until resumed"
    if pause.expires_at is not None:
        duration = f"for {span_words((pause.expires_at - pause.paused_at).total_seconds())}"
    return f"{pause.kind} {pause.name} paused {duration}"


def _resumed_line(scope: Scope, deleted: DeletedPause) -> str:
    outcome = "resumed" if deleted.was_paused else "was not paused"
    return f"{scope.kind} {scope.name} {outcome}"
