"""`status`: shows one notification, or waits until it is final."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.failures import FAILED, CommandFailed
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.cli.streams import write_line
from notifier.domain.notification import FINAL, Status

if TYPE_CHECKING:
    from notifier.api.responses import Notification
    from notifier.cli.client import Client

SUCCEEDED: Final = frozenset({Status.SENT, Status.DELIVERED})
ENDED: Final = FINAL | {Status.LOST}
"""With these nothing is left to wait for."""
_FIRST_POLL_S: Final = 0.05
_MAX_POLL_S: Final = 1.0
_WITHOUT_CONTENT: Final[Mapping[str, str]] = {}
_WITH_CONTENT: Final = {"include": "content"}


def status(
    id: Annotated[UUID, Parameter(help="The id that `send` printed.")],  # noqa: A002 the field's word
    *,
    content: Annotated[bool, Parameter(negative="", help="Show its content, too.")] = False,
    wait: Annotated[bool, Parameter(negative="", help="Wait until it is final.")] = False,
    timeout: Annotated[Span, Parameter(help="Time-out of --wait.")] = 300.0,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Show one notification with its attempts."""
    include = _WITH_CONTENT if content else _WITHOUT_CONTENT
    timeout_s = timeout if wait else None
    return run_async(_status(api_url(url), str(id), timeout_s, include, as_json=json))


async def _status(
    url: str,
    notification_id: str,
    timeout_s: float | None,
    include: Mapping[str, str],
    *,
    as_json: bool,
) -> int:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        if timeout_s is not None:
            return await wait_until_final(
                client, notification_id, timeout_s, include, as_json=as_json
            )
        await _show(client, notification_id, include, as_json=as_json)
        return 0


async def wait_until_final(
    client: Client,
    notification_id: str,
    timeout_s: float,
    include: Mapping[str, str] = _WITHOUT_CONTENT,
    *,
    as_json: bool,
) -> int:
    """Poll until the notification is final, then show it. Returns the exit code.

    Polls at growing intervals. Raises CommandFailed after `timeout_s`.
    """
    from notifier.api.responses import Notification  # noqa: PLC0415 start-up time
    from notifier.cli.client import notification_path  # noqa: PLC0415

    started_at, last_status, interval_s = time.monotonic(), "", _FIRST_POLL_S
    while True:
        notification = await client.get(notification_path(notification_id), Notification)
        if notification.status in ENDED:
            await _show(client, notification_id, include, as_json=as_json)
            return exit_code(notification.status)
        if time.monotonic() - started_at > timeout_s:
            if as_json:
                await _show(client, notification_id, include, as_json=True)
            raise CommandFailed(
                f"{notification_id} is still {notification.status} after {timeout_s:g} s"
            )
        if notification.status != last_status and not as_json:
            write_line(sys.stderr, _progress_line(notification))
        last_status, interval_s = notification.status, min(interval_s * 1.5, _MAX_POLL_S)
        await asyncio.sleep(interval_s)


def exit_code(status: str) -> int:
    """Return the exit code after a notification has ended with this status."""
    return 0 if status in SUCCEEDED else FAILED


def _progress_line(notification: Notification) -> str:
    error = f" after {notification.last_error}" if notification.last_error else ""
    return f"{notification.status}{error} ..."


async def _show(
    client: Client, notification_id: str, include: Mapping[str, str], *, as_json: bool
) -> None:
    from notifier.api.responses import Notification  # noqa: PLC0415 start-up time
    from notifier.cli.client import notification_path  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    path = notification_path(notification_id)
    if as_json:
        print_json(await client.get_raw(path, include))
        return
    _print_notification(await client.get(path, Notification, include))


def _print_notification(notification: Notification) -> None:
    from notifier.cli.show import print_table  # noqa: PLC0415 start-up time

    fields: dict[str, object] = {
        "id": str(notification.id),
        "status": notification.status,
        "queue": notification.queue,
        "recipient": notification.recipient,
        "tries": str(notification.tries),
        "provider": notification.provider,
        "reference": notification.reference,
        "result": _result_text(notification),
        "last error": notification.last_error,
        "created": notification.created_at,
        "updated": notification.updated_at,
    }
    if fallback := notification.fallback:
        became = fallback.notification or "not submitted"
        when = f"at {fallback.at.isoformat()} unless {fallback.unless}"
        fields["fallback"] = f"{fallback.channel} {when}: {became}"
    if notification.fallback_of is not None:
        fields["fallback of"] = str(notification.fallback_of)
    if notification.content is not msgspec.UNSET:
        content = bytes(notification.content).decode()
        fields["content"] = "removed" if content == "null" else content
    print_table(["notification", ""], fields.items())
    columns = ["number", "provider", "outcome", "code", "detail", "waited s", "started", "next"]
    rows = [
        (
            attempt.number,
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


def _result_text(notification: Notification) -> str:
    result = notification.result
    parts = (result.reason, result.code, result.detail) if result else ()
    return " ".join(part for part in parts if part)
