"""The schedules of provider rates, on their own connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.ports.rates import Slice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class PostgresRates:
    """One row a provider; see sql/reserve_slice.sql for how a schedule works."""

    def __init__(self, link: PostgresConnection) -> None:
        self._link = link

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        """The next `count` calls; none if the schedule is given away, or begins with this ask."""
        rows = await self._link.fetch(statement("reserve_slice"), provider, rate_per_s, count)
        if not rows:
            return Slice(starts_in_s=0.0, spacing_s=1 / rate_per_s, count=0, rate_per_s=rate_per_s)
        taken, rate_now = int(rows[0]["count"]), float(rows[0]["rate_per_s"])
        return Slice(
            starts_in_s=rows[0]["ends_in_s"] - taken / rate_now,
            spacing_s=1 / rate_now,
            count=taken,
            rate_per_s=rate_now,
        )

    async def cut(self, provider: str) -> bool:
        """0.7 of what it was; False within a second of the last cut."""
        return bool(await self._link.fetch(statement("cut_rate"), provider))


@asynccontextmanager
async def open_rates(settings: ConnectionSettings) -> AsyncIterator[PostgresRates]:
    """The connection of the schedules, opened when first used."""
    async with open_connection(settings) as link:
        yield PostgresRates(link)
