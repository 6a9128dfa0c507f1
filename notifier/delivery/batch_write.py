"""Writes a batch so that a row that Postgres rejects fails alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from notifier.domain.errors import StoreConflict, StoreRejected, StoreUnavailable
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Item = TypeVar("Item")
Reply = TypeVar("Reply")

MIN_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 1.0

log = structlog.get_logger(__name__)


async def write_batch(
    name: str, items: Sequence[Item], write: Callable[[Sequence[Item]], Awaitable[Sequence[Reply]]]
) -> list[Reply | StoreRejected | StoreUnavailable]:
    """Write items in one statement; return for each the reply, or why there is none.

    A rejected batch is halved until each rejected item is alone. A batch that Postgres rolled back
    is repeated. StoreUnavailable means that it is unknown whether the item was written.
    """
    backoff = Backoff(MIN_BACKOFF_S, MAX_BACKOFF_S)
    while True:
        try:
            return list(await write(items))
        except StoreRejected as error:
            if len(items) == 1:
                return [error]
            middle = len(items) // 2
            first = await write_batch(name, items[:middle], write)
            return first + await write_batch(name, items[middle:], write)
        except StoreConflict as error:
            log.warning("batch_retried", batch=name, size=len(items), reason=str(error))
            await asyncio.sleep(backoff.next_s())
        except StoreUnavailable as error:
            return [error] * len(items)
