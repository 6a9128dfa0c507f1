"""What the rows of notifications say of queues, channels and modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.domain.credentials import Mode
from notifier.domain.notification import QueueKey

if TYPE_CHECKING:
    from asyncpg import Record


def known_queue(name: str) -> QueueKey | None:
    """Return None for a name that is no queue's: another version may have written it."""
    try:
        return QueueKey.parse(name)
    except ValueError:
        return None


def channel_of(row: Record) -> str:
    """Return the channel that was asked for, also by a test key.

    The row has `test_channel` and `queue`.
    """
    channel: str = row["test_channel"] or row["queue"].rpartition(".")[0]
    return channel


def mode_of(row: Record) -> Mode:
    """Return whether a test key submitted the notification. The row has `test_channel`."""
    return Mode.TEST if row["test_channel"] else Mode.LIVE
