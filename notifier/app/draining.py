"""The end of sending, in order: stop taking, wait for attempts, give back the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from notifier.delivery.attempt import Attempts
from notifier.domain.errors import StoreError
from notifier.scheduling.consumers.pool import ConsumerPool
from notifier.scheduling.gates.breakers import Breakers

LAST_RELEASE_TIMEOUT_S: Final = 2.0
LAST_SETTLE_TIMEOUT_S: Final = 1.0
PROGRESS_INTERVAL_S: Final = 1.0

log = structlog.get_logger(__name__)


async def drain(pool: ConsumerPool, deadline: float) -> None:
    """Take no new messages, give the buffers back and wait for the attempts until `deadline`.

    The attempts left then are cancelled when the pool's block ends: each records Ambiguous.
    `deadline` is an instant of the monotonic clock.
    """
    log.info("drain_started", in_flight=pool.busy, grace_s=round(deadline - time.monotonic(), 1))
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await pool.stop_taking()
    except TimeoutError:
        log.warning("buffer_release_timed_out")
    while (left_s := deadline - time.monotonic()) > 0:
        left = await pool.finish(min(PROGRESS_INTERVAL_S, left_s))
        if not left:
            log.info("drain_finished")
            return
        log.info("drain_continued", in_flight=left, left_s=round(deadline - time.monotonic(), 1))
    log.warning("drain_timed_out", in_flight=pool.busy)


async def settle_probes(breakers: Breakers) -> None:
    """Close or open the breakers whose probes ended during the drain; takes 1 s at most."""
    try:
        async with asyncio.timeout(LAST_SETTLE_TIMEOUT_S):
            await breakers.finish()
    except TimeoutError:
        log.warning("probes_not_settled")


@asynccontextmanager
async def running_attempts(attempts: Attempts) -> AsyncIterator[None]:
    """Write the results and returns of the attempts that end inside the block.

    Leaving the block, also by an error of the consumers, records what is left (5 s at most) and
    gives back the claims that were not begun (2 s). What is left then counts as sent by a process
    that died.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(attempts.run(), name="records and returns")
        try:
            yield
        finally:
            await attempts.finish_recording(time.monotonic())
            await _release_remaining_orphans(attempts)
            attempts.close()


async def _release_remaining_orphans(attempts: Attempts) -> None:
    try:
        async with asyncio.timeout(LAST_RELEASE_TIMEOUT_S):
            await attempts.release_orphans()
    except (StoreError, TimeoutError) as error:
        log.warning("orphans_not_released", reason=str(error) or type(error).__name__)
