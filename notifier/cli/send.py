"""`send` and `status`: submits one notification, shows it, waits until it is final."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal
from uuid import UUID

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.failures import FAILED, CommandFailed
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.cli.streams import write_line
from notifier.domain.notification import FINAL, Status

if TYPE_CHECKING:
    from notifier.api.responses import Accepted, Notification
    from notifier.cli.client import Client

_PATH: Final = "/v1/notifications"
SUCCEEDED: Final = frozenset({Status.SENT, Status.DELIVERED})
_FIRST_POLL_S: Final = 0.05
_MAX_POLL_S: Final = 1.0


def send(
    *,
    channel: Annotated[str, Parameter(name=["--channel", "-c"], help="email, sms, push, ...")],
    to: Annotated[str, Parameter(name=["--to", "-t"], help="Address, phone number or token.")],
    priority: Literal["high", "medium", "low"] = "medium",
    subject: Annotated[
        str | None, Parameter(name=["--subject", "-s"], help="Subject or title.")
    ] = None,
    body: Annotated[str | None, Parameter(name=["--body", "-b"], help="Text.")] = None,
    html: Annotated[str | None, Parameter(help="Text as HTML.")] = None,
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
    send_at: Annotated[str | None, Parameter(help="Not before this instant (RFC 3339).")] = None,
    wait: Annotated[bool, Parameter(negative="", help="Wait until it is final.")] = False,
    timeout: Annotated[Span, Parameter(help="Time-out of --wait.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Submit one notification."""
    content = {"subject": subject, "body": body, "html": html, "data": data}
    submit: dict[str, object] = {
        "channel": channel,
        "priority": priority,
        "recipient": to,
        "content": _without_none(content),
        **_without_none({"ttl": ttl, "send_at": send_at, "metadata": metadata}),
    }
    return run_async(_send(api_url(url), submit, timeout if wait else None, as_json=json))


def status(
    id: Annotated[UUID, Parameter(help="The id that `send` printed.")],  # noqa: A002 the field's word
    *,
    wait: Annotated[bool, Parameter(negative="", help="Wait until it is final.")] = False,
    timeout: Annotated[Span, Parameter(help="Time-out of --wait.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Show one notification with its attempts."""
    return run_async(_status(api_url(url), str(id), timeout if wait else None, as_json=json))


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


async def _send(
    url: str, submit: Mapping[str, object], timeout_s: float | None, *, as_json: bool
) -> int:
    from notifier.api.responses import Accepted  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        accepted = await client.post(_PATH, submit, Accepted)
        if timeout_s is None:
            print_json(accepted) if as_json else print(_accepted_line(accepted))
            return 0
        if not as_json:
            print(_accepted_line(accepted), flush=True)
        return await _wait_until_final(client, str(accepted.id), timeout_s, as_json=as_json)


async def _status(url: str, notification_id: str, timeout_s: float | None, *, as_json: bool) -> int:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        if timeout_s is not None:
            return await _wait_until_final(client, notification_id, timeout_s, as_json=as_json)
        await _show(client, notification_id, as_json=as_json)
        return 0


def _accepted_line(accepted: Accepted) -> str:
    return f"{accepted.id} {accepted.status} on {accepted.queue}"


async def _wait_until_final(
    client: Client, notification_id: str, timeout_s: float, *, as_json: bool
) -> int:
    """Poll until the notification is final, then show it. Returns the exit code.

    Polls at growing intervals. Raises CommandFailed after `timeout_s`.
    """
    from notifier.api.responses import Notification  # noqa: PLC0415 start-up time
    from notifier.cli.client import notification_path  # noqa: PLC0415

    started_at, last_status, interval_s = time.monotonic(), "", _FIRST_POLL_S
    while True:
        notification = await client.get(notification_path(notification_id), Notification)
        if notification.status in FINAL or notification.status is Status.LOST:
            await _show(client, notification_id, as_json=as_json)
            return 0 if notification.status in SUCCEEDED else FAILED
        if time.monotonic() - started_at > timeout_s:
            if as_json:
                await _show(client, notification_id, as_json=True)
            raise CommandFailed(
                f"{notification_id} is still {notification.status} after {timeout_s:g} s"
            )
        if notification.status != last_status and not as_json:
            write_line(sys.stderr, _progress_line(notification))
        last_status, interval_s = notification.status, min(interval_s * 1.5, _MAX_POLL_S)
        await asyncio.sleep(interval_s)


def _progress_line(notification: Notification) -> str:
    error = f" after {notification.last_error}" if notification.last_error else ""
    return f"{notification.status}{error} ..."


async def _show(client: Client, notification_id: str, *, as_json: bool) -> None:
    from notifier.api.responses import Notification  # noqa: PLC0415 start-up time
    from notifier.cli.client import notification_path  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    if as_json:
        print_json(await client.get_raw(notification_path(notification_id)))
        return
    _print_notification(await client.get(notification_path(notification_id), Notification))


def _print_notification(notification: Notification) -> None:
    from notifier.cli.show import print_table  # noqa: PLC0415 start-up time

    fields = {
        "id": str(notification.id),
        "status": notification.status,
        "queue": notification.queue,
        "recipient": notification.recipient,
        "tries": str(notification.tries),
        "last error": notification.last_error,
        "created": notification.created_at,
        "updated": notification.updated_at,
    }
    print_table(["notification", ""], fields.items())
    columns = ["claim", "provider", "outcome", "code", "detail", "waited s", "started", "next"]
    rows = [
        (
            attempt.claim,
            attempt.provider,
            attempt.outcome,
            attempt.code,
            attempt.detail,
            attempt.queue_wait_s,
            attempt.started_at,
            attempt.next_at,
        )
        for attempt in notification.attempts
    ]
    print()
    print_table(columns, rows) if rows else print("no attempts yet")
