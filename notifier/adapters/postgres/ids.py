"""UUIDv7 as the bounds of a time: ids grow with it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

_MAX_ID: Final = 2**128 - 1


def id_bounds(
    created_from: float | None, created_to: float | None, before: UUID | None
) -> tuple[UUID, UUID]:
    """Return the least and the greatest id of a span, and older than `before`.

    Instants are seconds since the epoch; None: no bound.
    """
    least, greatest = 0, _MAX_ID
    if created_from is not None:
        least = _first_id(created_from)
    if created_to is not None:
        greatest = _first_id(created_to)
    if before is not None:
        greatest = min(greatest, before.int - 1)
    return UUID(int=least), UUID(int=max(greatest, 0))


def _first_id(seconds: float) -> int:
    """Return the least UUIDv7 of an instant: 48 bits of milliseconds, then zeros."""
    return (round(seconds * 1_000_000) // 1000) << 80
