"""The time limit of a response that needs Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifier.domain.errors import StoreUnavailable


@asynccontextmanager
async def deadline(timeout_s: float) -> AsyncIterator[None]:
    """Cancels the block after `timeout_s` and raises StoreUnavailable."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer within {timeout_s:g} s") from error
