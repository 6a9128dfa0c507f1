"""How long an answer that needs Postgres may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifier.domain.errors import StoreUnavailable


@asynccontextmanager
async def deadline(within_s: float) -> AsyncIterator[None]:
    """Raises StoreUnavailable when the block takes longer."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer within {within_s:g} s") from error
