"""Watches notifications until all are final, page by page and not one by one.

Pages come newest first and the oldest tend to end first: each look stops where the last
unfinished one was seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

import msgspec

from notifier.cli.client import Notification
from notifier.cli.failures import CommandFailed
from notifier.domain.notification import FINAL

T = TypeVar("T")

PAGE: Final = 200
_LOOK_EVERY_S: Final = 0.5


class Page(msgspec.Struct, frozen=True):
    """One page of `GET /v1/notifications`."""

    notifications: list[Notification]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How one notification ended, or where it stood when we stopped looking."""

    status: str
    age_s: float

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in FINAL


class Gets(Protocol):
    """What is needed of the API's client."""

    async def get(self, path: str, into: type[T], params: Mapping[str, str] | None = None) -> T:
        """GET a JSON document."""
        ...


@dataclass(slots=True)
class Follower:
    """`ends` has what is known of each id; `on_progress` is told how many are final."""

    client: Gets
    wanted: set[str]
    created_from: str
    on_progress: Callable[[int], None]

    async def run(self, within_s: float) -> dict[str, End]:
        """Look until all are final or the time is up."""
        began, ends = time.monotonic(), dict[str, End]()
        open_ids = set(self.wanted)
        while open_ids:
            looked = time.monotonic()
            try:
                ends |= await self._look(open_ids)
            except CommandFailed:  # the API may be away for a while, as in a test of faults
                if looked - began > within_s:
                    raise
            open_ids = {one for one in open_ids if one not in ends or not ends[one].is_final}
            self.on_progress(len(self.wanted) - len(open_ids))
            now = time.monotonic()
            if now - began > within_s:
                break
            if open_ids:
                await asyncio.sleep(max(_LOOK_EVERY_S, 2 * (now - looked)))
        return ends

    async def _look(self, open_ids: set[str]) -> dict[str, End]:
        """Where each of these stands; an id the pages do not show is left out."""
        seen: dict[str, End] = {}
        params = {"created_from": self.created_from, "limit": str(PAGE)}
        while len(seen) < len(open_ids):
            page = await self.client.get("/v1/notifications", Page, params)
            seen |= {one.id: _end(one) for one in page.notifications if one.id in open_ids}
            if not page.next_cursor:
                break
            params["cursor"] = page.next_cursor
        return seen


def _end(one: Notification) -> End:
    age = datetime.fromisoformat(one.updated_at) - datetime.fromisoformat(one.created_at)
    return End(one.status, age.total_seconds())
