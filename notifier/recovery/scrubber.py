"""Removes the contents of notifications that have been final for `retention.content_s`.

Status, recipient and attempts stay.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError
from notifier.lifecycle import rest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.domain.notification import Priority
    from notifier.ports.scrubbing import ContentStore

SCRUB_INTERVAL_S: Final = 60.0
REST: Final = 2.0
MAX_REST_S: Final = 1.0
"""How long a process rests after a chunk, compared with the chunk, and at most."""
MAX_CHUNKS: Final = 1000
"""Of one pass."""

log = structlog.get_logger(__name__)


class Scrubber:
    """Every process runs one; while one removes contents, the others do nothing."""

    def __init__(self, *, store: ContentStore, keep_s: Mapping[Priority, float]) -> None:
        self._store = store
        self._keep_s = keep_s

    async def run_once(self) -> int:
        """Remove all contents that are due, within limits; returns how many."""
        count = 0
        try:
            for _ in range(MAX_CHUNKS):
                began_at = time.monotonic()
                scrubbed = await self._store.scrub(self._keep_s)
                count += scrubbed.removed
                if not scrubbed.is_behind:
                    break
                # Claims, results and submits get Postgres for twice as long.
                await rest(time.monotonic() - began_at, times=REST, max_s=MAX_REST_S)
        except StoreError as error:
            log.warning("scrub_failed", reason=str(error))
        if count:
            log.info("contents_scrubbed", count=count)
        return count
