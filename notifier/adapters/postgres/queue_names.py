"""Names of queues in rows."""

from __future__ import annotations

from notifier.domain.notification import QueueKey


def known_queue(name: str) -> QueueKey | None:
    """Return None for a name that is no queue's: another version may have written it."""
    try:
        return QueueKey.parse(name)
    except ValueError:
        return None
