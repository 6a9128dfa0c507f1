"""The order in which the rows of one queue are published: classes, and positions in a class."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, NamedTuple
from uuid import UUID


class DueClass(IntEnum):
    """Why a row is due. Classes are read apart, each in the order of its positions.

    The numbers are stored in the column `class` of the table `live`.
    """

    BACK = 0
    """Given back, or recovered after a death: read before all others."""
    FIRST = 1
    """Due for the first time."""
    RETRY = 2
    """Due again after a failed attempt."""
    DIRECT = 3
    """Published by the process that stored it; published again if it is not claimed soon."""

    # Enum.__hash__ is a Python function; int.__hash__ is faster, and these are keys everywhere.
    __hash__ = int.__hash__


class Position(NamedTuple):
    """The position of a row in its class: rows are ordered by `due_at`, then by `id`."""

    due_at: datetime
    id: UUID


BEGINNING: Final = Position(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
"""The position before all rows."""
RETRY_SHARE: Final = 4
"""While first attempts wait, one row in four that is published is a retry."""
