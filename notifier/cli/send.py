"""`send` and `status`: one notification, from here to its end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from cyclopts import Parameter

from notifier.cli.configured import api_url
from notifier.cli.failures import FAILED, CommandFailed
from notifier.cli.options import AsJson, Seconds, Url
from notifier.cli.running import run_briefly
from notifier.domain.notification import FINAL

if TYPE_CHECKING:
    from notifier.cli.client import Client, Notification

_ARRIVED = {"sent", "delivered"}


def send(
    *,
    channel: Annotated[str, Parameter(name=["--channel", "-c"], help="email, sms, push, ...")],
    to: Annotated[str, Parameter(name=["--to", "-t"], help="Address, phone number or token.")],
    priority: Literal["high", "medium", "low"] = "medium",
    subject: Annotated[str | None, Parameter(name=["--subject", "-s"], help="Its title.")] = None,
    body: Annotated[str | None, Parameter(name=["--body", "-b"], help="Its text.")] = None,
    html: Annotated[str | None, Parameter(help="Its text as HTML.")] = None,
    data: Annotated[dict[str, str] | None, Parameter(help="More, as --data.KEY VALUE.")] = None,
    metadata: Annotated[
        dict[str, str] | None, Parameter(help="Kept with it, as --metadata.KEY VALUE.")
    ] = None,
    ttl: Annotated[Seconds | None, Parameter(help="Seconds after which it expires.")] = None,
    send_at: Annotated[str | None, Parameter(help="Not before this instant (RFC 3339).")] = None,
    wait: Annotated[bool, Parameter(negative="", help="Follow it until it is final.")] = False,
    timeout: Annotated[Seconds, Parameter(help="Seconds to wait at most.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Submit one notification."""
    content = {"subject": subject, "body": body, "html": html, "data": data}
    asked: dict[str, object] = {
        "channel": channel,
        "priority": priority,
        "recipient": to,
        "content": _given(content),
        **_given({"ttl": ttl, "send_at": send_at, "metadata": metadata}),
    }
    return run_briefly(_send(api_url(url), asked, timeout if wait else None, as_json=json))


def status(
    id: Annotated[UUID, Parameter(help="What `send` printed.")],  # noqa: A002 the field's word
    *,
    wait: Annotated[bool, Parameter(negative="", help="Follow it until it is final.")] = False,
    timeout: Annotated[Seconds, Parameter(help="Seconds to wait at most.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Show one notification with its attempts."""
    return run_briefly(_status(api_url(url), str(id), timeout if wait else None, as_json=json))


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


async def _send(
    url: str, asked: Mapping[str, object], timeout_s: float | None, *, as_json: bool
) -> int:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        accepted = await client.submit(asked)
        if timeout_s is None:
            print_json(accepted) if as_json else print(_accepted_line(accepted))
            return 0
        if not as_json:
            print(_accepted_line(accepted), flush=True)
        return await _follow(client, accepted["id"], timeout_s, as_json=as_json)


async def _status(url: str, wanted: str, timeout_s: float | None, *, as_json: bool) -> int:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        if timeout_s is not None:
            return await _follow(client, wanted, timeout_s, as_json=as_json)
        await _show(client, wanted, as_json=as_json)
        return 0


def _accepted_line(accepted: Mapping[str, str]) -> str:
    return f"{accepted['id']} {accepted.get('status', '')} on {accepted.get('queue', '')}"


async def _follow(client: Client, wanted: str, timeout_s: float, *, as_json: bool) -> int:
    """Ask until it is final, at first often; 0 if it arrived."""
    from notifier.cli.client import Notification, path_of  # noqa: PLC0415 start-up time

    began, last, pause = time.monotonic(), "", 0.05
    while True:
        now = await client.get(path_of(wanted), Notification)
        if now.status in FINAL:
            await _show(client, wanted, as_json=as_json)
            return 0 if now.status in _ARRIVED else FAILED
        if time.monotonic() - began > timeout_s:
            if as_json:
                await _show(client, wanted, as_json=True)
            raise CommandFailed(f"{wanted} is still {now.status} after {timeout_s:g} s")
        if now.status != last and not as_json:
            print(_progress_line(now), file=sys.stderr, flush=True)
        last, pause = now.status, min(pause * 1.5, 1.0)
        await asyncio.sleep(pause)


def _progress_line(now: Notification) -> str:
    return f"{now.status}{f' after {now.last_error}' if now.last_error else ''} ..."


async def _show(client: Client, wanted: str, *, as_json: bool) -> None:
    from notifier.cli.client import Notification, path_of  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    if as_json:
        print_json(await client.raw(path_of(wanted)))
        return
    found = await client.get(path_of(wanted), Notification)
    facts = {
        "id": found.id,
        "status": found.status,
        "queue": f"{found.channel}.{found.priority}",
        "recipient": found.recipient,
        "tries": str(found.tries),
        "last error": found.last_error,
        "created": found.created_at,
        "updated": found.updated_at,
    }
    print_table(["notification", ""], facts.items())
    columns = ["claim", "provider", "outcome", "code", "detail", "waited s", "started", "next"]
    rows = [
        (
            one.claim,
            one.provider,
            one.outcome,
            one.code,
            one.detail,
            one.queue_wait_s,
            one.started_at,
            one.next_at,
        )
        for one in found.attempts
    ]
    print()
    print_table(columns, rows) if rows else print("no attempts yet")
