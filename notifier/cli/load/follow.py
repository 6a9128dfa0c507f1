"""Waits until submitted notifications are final. Reads pages of the list, not single rows.

Pages come newest first and the oldest notifications tend to finish first: each pass stops reading
at the page with the last unfinished notification.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from notifier.api.responses import NotificationPage, Summary
from notifier.cli.failures import CommandFailed
from notifier.cli.load.progress import Progress
from notifier.cli.status import ENDED

T = TypeVar("T")

PAGE_SIZE: Final = 200
_MIN_INTERVAL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class End:
    """The last known status of one notification, and its age then in seconds."""

    status: str
    age_s: float

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.status in ENDED


class ApiReader(Protocol):
    """The part of the API's client that a Follower needs."""

    async def get(self, path: str, into: type[T], params: Mapping[str, str] | None = None) -> T:
        """GET a JSON document. Raises CommandFailed."""
        ...


@dataclass(slots=True)
class Follower:
    """Polls the notifications `ids`, created at `created_from` or later, until all are final."""

    client: ApiReader
    ids: set[str]
    created_from: str
    progress: Progress

    async def run(self, timeout_s: float) -> dict[str, End]:
        """Poll until all are final or the time is up. Returns the last known state by id.

        Ignores failures of the API until the time is up, then raises CommandFailed.
        """
        started_at, ends = time.monotonic(), dict[str, End]()
        open_ids = set(self.ids)
        while open_ids:
            pass_started_at = time.monotonic()
            try:
                ends |= await self._read(open_ids)
            except CommandFailed:  # the API may be down for a while, as in a test of faults
                if pass_started_at - started_at > timeout_s:
                    raise
            still_open = {id_ for id_ in open_ids if id_ not in ends or not ends[id_].is_final}
            self.progress.advance(len(open_ids) - len(still_open))
            open_ids = still_open
            now = time.monotonic()
            if now - started_at > timeout_s:
                break
            if open_ids:
                await asyncio.sleep(max(_MIN_INTERVAL_S, 2 * (now - pass_started_at)))
        return ends

    async def _read(self, open_ids: set[str]) -> dict[str, End]:
        """Read the state of these notifications. Omits ids that the pages do not contain."""
        seen: dict[str, End] = {}
        params = {"created_from": self.created_from, "limit": str(PAGE_SIZE)}
        while len(seen) < len(open_ids):
            page = await self.client.get("/v1/notifications", NotificationPage, params)
            seen |= {str(row.id): _end(row) for row in page.items if str(row.id) in open_ids}
            if not page.next_cursor:
                break
            params["cursor"] = page.next_cursor
        return seen


def _end(notification: Summary) -> End:
    age = notification.updated_at - notification.created_at
    return End(notification.status, age.total_seconds())
