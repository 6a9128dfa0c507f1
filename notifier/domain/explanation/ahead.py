"""Which rows stand before a notification, and how many these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from notifier.domain.due import RETRY_SHARE, DueClass, Position
from notifier.domain.explanation.facts import Ahead, ClassCount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.domain.explanation.facts import WaitingRow

FIRSTS: Final = frozenset({DueClass.FIRST, DueClass.DIRECT})
"""Rows that are due for the first time; which process publishes them makes no difference here."""
FIRSTS_PER_RETRY: Final = RETRY_SHARE - 1
COARSE_FROM: Final = 100
"""From this count on others' volume is shown with two digits."""
_LAST_ID: Final = UUID(int=2**128 - 1)
_NONE: Final = ClassCount(0, is_exact=True)


def rows_before(row: WaitingRow) -> Mapping[DueClass, Position]:
    """Return up to which position rows stand before a notification, for each class.

    Rows that were given back are read before all others. First attempts and retries are read by
    turns, so the rows of the other kind count that are due by then.
    """
    position = Position(row.due_at, row.id)
    due_by_then = Position(max(position.due_at, row.as_of_at), _LAST_ID)
    if row.due_class is DueClass.BACK:
        return {DueClass.BACK: position}
    own = FIRSTS if row.due_class in FIRSTS else {DueClass.RETRY}
    others = {DueClass.RETRY} if row.due_class in FIRSTS else FIRSTS
    return {
        **dict.fromkeys(sorted(own), position),
        DueClass.BACK: due_by_then,
        **dict.fromkeys(sorted(others), due_by_then),
    }


def ahead_of(due_class: DueClass, counts: Mapping[DueClass, ClassCount]) -> Ahead:
    """Return how many rows stand before one of this class, which has these before it.

    While both wait, one row in four is a retry: of the other kind only as many count as are read
    before it.
    """
    back, retry = (counts.get(of, _NONE) for of in (DueClass.BACK, DueClass.RETRY))
    first = _sum(*(counts.get(of, _NONE) for of in FIRSTS))
    if due_class is DueClass.BACK:
        own, others, most_others = back, _NONE, 0
    elif due_class is DueClass.RETRY:
        own, others = _sum(back, retry), first
        most_others = FIRSTS_PER_RETRY * (retry.count + 1)
    else:
        own, others = _sum(back, first), retry
        most_others = first.count // FIRSTS_PER_RETRY
    is_exact = own.is_exact and others.is_exact
    return Ahead(
        own.count + min(others.count, most_others),
        is_exact=is_exact,
        at_most=own.count + most_others if is_exact else None,
    )


def coarse(ahead: Ahead) -> Ahead:
    """Return a count with two digits from 100 on, rounded down: others' volume is theirs."""
    if ahead.count < COARSE_FROM:
        return ahead
    step: int = 10 ** (len(str(ahead.count)) - 2)
    return Ahead(
        ahead.count // step * step,
        is_exact=False,
        at_most=None if ahead.at_most is None else (ahead.at_most // step + 1) * step,
    )


def _sum(*counts: ClassCount) -> ClassCount:
    return ClassCount(
        sum(each.count for each in counts), is_exact=all(each.is_exact for each in counts)
    )
