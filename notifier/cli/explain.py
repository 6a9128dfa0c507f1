"""`explain`: shows why a notification waits, once or until it is final."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.cli.status import ENDED, exit_code
from notifier.domain.explanation.facts import BlockerKind
from notifier.domain.notification import WAITING

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from notifier.api.responses import Blocker, Explanation
    from notifier.cli.client import Client


def explain(
    id: Annotated[UUID, Parameter(help="The id that `send` printed.")],  # noqa: A002 the field's word
    *,
    watch: Annotated[
        bool, Parameter(name=["--watch", "-w"], negative="", help="Update until it is final.")
    ] = False,
    every: Annotated[Span, Parameter(help="Time between two updates of --watch.")] = 1.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Show what holds a notification, how many stand before it, and when it may be sent."""
    return run_async(_explain(api_url(url), str(id), every if watch else None, as_json=json))


async def _explain(
    url: str, notification_id: str, interval_s: float | None, *, as_json: bool
) -> int:
    from rich.console import Console  # noqa: PLC0415 start-up time

    from notifier.cli.client import notification_path, open_client  # noqa: PLC0415

    console, path = Console(), f"{notification_path(notification_id)}/explain"
    async with open_client(url) as client:
        if interval_s is None:
            await _print(client, path, as_json=as_json)
            return 0
        if console.is_terminal and not as_json:
            return await _watch(client, path, interval_s, console)
        while True:
            status = await _print(client, path, as_json=as_json)
            if status in ENDED:
                return exit_code(status)
            await asyncio.sleep(interval_s)


async def _print(client: Client, path: str, *, as_json: bool) -> str:
    """Print one explanation; returns the status in it."""
    from notifier.api.responses import Explanation  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    if as_json:
        raw = await client.get_raw(path)
        print_json(raw)
        return str(raw.get("status")) if isinstance(raw, dict) else ""
    explanation = await client.get(path, Explanation)
    print("\n".join(lines(explanation)), flush=True)
    return explanation.status


async def _watch(client: Client, path: str, interval_s: float, console: Console) -> int:
    """Update one explanation in place until the notification has ended."""
    from rich.live import Live  # noqa: PLC0415 start-up time
    from rich.text import Text  # noqa: PLC0415

    from notifier.api.responses import Explanation  # noqa: PLC0415

    with Live(Text(""), console=console, auto_refresh=False) as live:
        while True:
            explanation = await client.get(path, Explanation)
            live.update(Text("\n".join(lines(explanation))), refresh=True)
            if explanation.status in ENDED:
                return exit_code(explanation.status)
            await asyncio.sleep(interval_s)


def lines(explanation: Explanation) -> Iterator[str]:
    """Yield an explanation as text, with times in UTC."""
    as_of_at, status = explanation.as_of_at, explanation.status
    if status not in WAITING:
        yield f"{status}: it does not wait   (`notifier status ID` shows every attempt)"
        return
    held = ":" if explanation.blockers else ", and nothing holds it"
    yield f"{status} on {explanation.queue}, not sent yet{held}"
    width = max((len(blocker.kind) for blocker in explanation.blockers), default=0)
    for blocker in explanation.blockers:
        yield f"  {blocker.kind:<{width}}  {_blocker_text(blocker, as_of_at)}".rstrip()
    yield f"{_expected_text(explanation)}   (as of {as_of_at:%H:%M:%S} UTC)"


def _blocker_text(blocker: Blocker, as_of_at: datetime) -> str:
    verb = "probed next at" if blocker.kind == BlockerKind.BREAKER else "until"
    until = "" if blocker.until_at is None else f"{verb} {_clock(blocker.until_at, as_of_at)}"
    name = "" if blocker.name is None else blocker.name.replace(":", " ", 1)
    return ", ".join(part for part in (name, blocker.detail, until) if part)


def _expected_text(explanation: Explanation) -> str:
    expected, as_of_at = explanation.expected, explanation.as_of_at
    expires = f"expires {_clock(explanation.expires_at, as_of_at)}"
    if expected is None:
        return f"no time can be told; {expires}"
    earliest = _clock(expected.earliest_at, as_of_at)
    if expected.latest_at is None:
        return f"expected not before {earliest}; {expires}"
    return f"expected between {earliest} and {_clock(expected.latest_at, as_of_at)}; {expires}"


def _clock(at: datetime, as_of_at: datetime) -> str:
    """Return a time of day, with the date if it is another day."""
    return f"{at:%H:%M:%S}" if at.date() == as_of_at.date() else f"{at:%Y-%m-%d %H:%M:%S}"
