"""The events of a round: each notification that ended has one, and no event is read twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from harness.client import Client, Document
from notifier.domain.notification import FINAL

PAGE: Final = 200
EXAMPLES: Final = 3


async def begin_reading(client: Client) -> str:
    """Return the cursor from which the events of a round are read."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    page = await client.call("GET", "events", params={"from": now, "limit": "1"})
    cursor: str = page["next_cursor"]
    return cursor


async def read_events(client: Client, cursor: str) -> Sequence[Document]:
    """Return all events after a cursor, read page by page."""
    found, has_more = list[Document](), True
    while has_more:
        page = await client.call("GET", "events", params={"cursor": cursor, "limit": str(PAGE)})
        found += page["items"]
        cursor, has_more = page["next_cursor"], page["has_more"]
    return found


def broken_events(events: Sequence[Document], statuses: Mapping[str, str]) -> Sequence[str]:
    """Return which promises about events were broken; `statuses` are those of notifications."""
    twice = [id_ for id_, count in Counter(each["id"] for each in events).items() if count > 1]
    ended = {
        (shown["id"], shown["status"])
        for each in events
        if (shown := each["data"].get("notification"))
    }
    missed = [
        f"{id_} {status}"
        for id_, status in statuses.items()
        if status in FINAL and (id_, status) not in ended
    ]
    return [
        f"{len(found)} {text}, such as {', '.join(found[:EXAMPLES])}"
        for text, found in (("events read twice", twice), ("ended without an event", missed))
        if found
    ]
