"""The end of sending, in order: stop taking, wait for attempts, give back the rest."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from notifier.delivery.attempt import Attempts
from notifier.domain.errors import StoreUnavailable
from notifier.scheduling.consumers.pool import ConsumerPool

LAST_RELEASE_TIMEOUT_S: Final = 2.0
PROGRESS_INTERVAL_S: Final = 1.0

log = structlog.get_logger(__name__)


async def drain(pool: ConsumerPool, grace_s: float) -> None:
    """Take no new messages, give the buffers back and wait for the attempts, `grace_s` at most.

    The attempts left then are cancelled when the pool's block ends: each records Ambiguous.
    """
    deadline = time.monotonic() + grace_s
    log.info("drain_started", in_flight=pool.busy, grace_s=grace_s)
    try:
        async with asyncio.timeout(grace_s):
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


async def release_remaining_orphans(attempts: Attempts) -> None:
    """After the last attempt, give back the rows still claimed by this worker; 2 s at most."""
    try:
        async with asyncio.timeout(LAST_RELEASE_TIMEOUT_S):
            await attempts.release_remaining()
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("orphans_not_released", reason=str(error) or type(error).__name__)
