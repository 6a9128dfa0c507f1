"""`events`: shows what happened, and what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter, validators

from notifier.cli.environment import api_url
from notifier.cli.failures import CommandFailed
from notifier.cli.messages import print_message
from notifier.cli.options import Tenant, Url, of_tenant
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.domain.errors import ConfigError
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from notifier.api.events.documents import Event

PATH: Final = "/v1/events"
FIRST_WAIT_S: Final = 0.5
MAX_WAIT_S: Final = 10.0
_LOGS: Final = "/v1/logs"
_PAGE: Final = "200"
Values = Annotated[list[str] | None, Parameter(negative="", show_default=False)]


def events(
    *,
    follow: Annotated[bool, Parameter(negative="", help="Go on with what happens.")] = False,
    type: Annotated[  # noqa: A002 the field's word
        list[str] | None,
        Parameter(help="Only of these types: notification.failed, breaker.*", negative=""),
    ] = None,
    channel: Values = None,
    priority: Values = None,
    tag: Values = None,
    notification: Annotated[
        list[str] | None, Parameter(help="Only of the notifications with these ids.", negative="")
    ] = None,
    since: Annotated[
        Span | None, Parameter(help="From so long ago on.", show_default=False)
    ] = None,
    limit: Annotated[
        int,
        Parameter(
            help="Without --since: the last so many.", validator=validators.Number(gte=1, lte=200)
        ),
    ] = 50,
    tenant: Tenant = None,
    url: Url = None,
    json: Annotated[
        bool, Parameter(name="--json", negative="", help="Print a JSON document a line.")
    ] = False,
) -> None:
    """Show the last events, those since a time, or what happens from now on."""
    filters = {
        name: ",".join(values)
        for name, values in (
            ("type", type),
            ("channel", channel),
            ("priority", priority),
            ("tag", tag),
            ("notification", notification),
        )
        if values
    }
    filters |= of_tenant(tenant)
    if since is not None:
        filters["from"] = (datetime.now(UTC) - timedelta(seconds=since)).isoformat()
    address = api_url(url)
    if follow:
        run_async(_follow(address, filters, as_json=json))
    elif since is not None:
        run_async(_show_since(address, filters, as_json=json))
    elif json:
        raise ConfigError("--json: expected --since or --follow beside it")
    else:
        run_async(_show_last(address, filters | {"limit": str(limit)}))


async def _show_last(url: str, params: Mapping[str, str]) -> None:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        print(await client.get_text(_LOGS, params), end="")


async def _show_since(url: str, filters: Mapping[str, str], *, as_json: bool) -> None:
    from notifier.api.events.documents import EventPage  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    params = {**filters, "limit": _PAGE}
    async with open_client(url) as client:
        while True:
            page = await client.get(PATH, EventPage, params)
            for event in page.items:
                _print(event, as_json=as_json)
            if not page.has_more:
                return
            params["cursor"] = page.next_cursor


async def _follow(url: str, filters: Mapping[str, str], *, as_json: bool) -> None:
    """Print what happens. After a lost connection it resumes behind what it has printed."""
    from notifier.cli.client import open_session  # noqa: PLC0415 start-up time
    from notifier.cli.event_stream import StreamLost, streamed  # noqa: PLC0415

    backoff = Backoff(FIRST_WAIT_S, MAX_WAIT_S)
    last_id = ""
    has_connected = False
    async with open_session(connections=1) as session:
        while True:
            try:
                async for id_, event in streamed(session, url + PATH, filters, last_id):
                    has_connected, last_id = True, id_ or last_id
                    backoff.reset()
                    if event is not None:
                        _print(event, as_json=as_json)
            except StreamLost as error:
                if not has_connected:
                    raise CommandFailed(str(error)) from error
                print_message(f"{error}; connecting again")
            await asyncio.sleep(backoff.next_s())


def _print(event: Event, *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.events.encoding import line_of  # noqa: PLC0415

    print(msgspec.json.encode(event).decode() if as_json else line_of(event), flush=True)
