"""The schedules of provider rates in Postgres, on their own connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.provider_rate import (
    CUT_FACTOR,
    CUT_INTERVAL_S,
    MAX_LEAD_S,
    MIN_FACTOR,
    REGROWTH_PER_S,
    max_reach_s,
)
from notifier.ports.rates import Slice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECTIONS: Final = 1
"""How many connections `open_rates` opens at most."""


class PostgresRates:
    """Implements ports.rates.RateStore: one row per provider, see sql/reserve_slice.sql."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        rows = await self._connection.fetch(
            statement("reserve_slice"),
            provider,
            rate_per_s,
            count,
            MAX_LEAD_S,
            max_reach_s(rate_per_s),
            REGROWTH_PER_S,
        )
        if not rows:  # this call created the schedule: nothing is reserved in it yet
            return Slice(starts_in_s=0.0, spacing_s=1 / rate_per_s, count=0, rate_per_s=rate_per_s)
        reserved, rate_now = int(rows[0]["count"]), float(rows[0]["rate_per_s"])
        return Slice(
            starts_in_s=rows[0]["ends_in_s"] - reserved / rate_now,
            spacing_s=1 / rate_now,
            count=reserved,
            rate_per_s=rate_now,
        )

    async def cut(self, provider: str) -> bool:
        rows = await self._connection.fetch(
            statement("cut_rate"), provider, CUT_FACTOR, MIN_FACTOR, REGROWTH_PER_S, CUT_INTERVAL_S
        )
        return bool(rows)


@asynccontextmanager
async def open_rates(settings: ConnectionSettings) -> AsyncIterator[PostgresRates]:
    """The schedules, on a connection that connects at first use."""
    async with open_connection(settings) as connection:
        yield PostgresRates(connection)
