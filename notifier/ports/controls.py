"""Pauses and breakers, shared by all processes."""

from __future__ import annotations

from typing import Protocol

from notifier.domain.controls import Controls, Scope


class ControlStore(Protocol):
    """Pauses and breakers in Postgres. Every change tells all processes at once.

    Raises StoreUnavailable. Each change is compare-and-set and says whether it was made.
    """

    async def read(self) -> Controls:
        """All pauses that have not expired, and all breakers."""
        ...

    async def changed(self, within_s: float) -> None:
        """Return when some process changed something, or after `within_s`; raises nothing else."""
        ...

    async def pause(self, scope: Scope, *, reason: str, for_s: float | None) -> None:
        """Begin or prolong a pause; None is until resumed."""
        ...

    async def resume(self, scope: Scope) -> bool:
        """End a pause; False if there was none."""
        ...

    async def open_breaker(self, provider: str, reason: str) -> bool:
        """Closed (or no row) -> open, to be probed in 5 s."""
        ...

    async def hold_probe(self, provider: str, within_s: float) -> bool:
        """Open and past its wait, or half-open and past its hold -> half-open, held by us.

        The hold ends after `within_s`.
        """
        ...

    async def reopen_breaker(self, provider: str, reason: str) -> bool:
        """Half-open and held by this process -> open, the wait doubled, 60 s at most."""
        ...

    async def close_breaker(self, provider: str) -> bool:
        """Half-open and held by this process -> closed."""
        ...
