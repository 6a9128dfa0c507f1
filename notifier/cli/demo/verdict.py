"""Whether everything became of the notifications that had to: a pure comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from notifier.cli.demo.plan import FATES, Fate, Order


@dataclass(frozen=True, slots=True, kw_only=True)
class WaiterQueue:
    """All notifications of one fate. `wrong` of them have another status or number of calls."""

    fate: Fate
    submitted: int
    sent: int
    failed: int
    calls: int
    wrong: int


def compare(
    orders: Mapping[str, Order], statuses: Mapping[str, str], calls: Mapping[str, int]
) -> Sequence[WaiterQueue]:
    """Hold the API's answers and the sandbox's log against the plan, one notification at a time.

    All three are by id; an id that is missing somewhere is wrong.
    """
    return [_line(fate, orders, statuses, calls) for fate in FATES]


def strangers(orders: Mapping[str, Order], calls: Mapping[str, int]) -> int:
    """Calls in the sandbox's log that belong to nothing we submitted."""
    return sum(count for id_, count in calls.items() if id_ not in orders)


def _line(
    fate: Fate,
    orders: Mapping[str, Order],
    statuses: Mapping[str, str],
    calls: Mapping[str, int],
) -> WaiterQueue:
    ids = [id_ for id_, order in orders.items() if order.fate is fate]
    ends = [(statuses.get(id_, "unknown"), calls.get(id_, 0)) for id_ in ids]
    return WaiterQueue(
        fate=fate,
        submitted=len(ids),
        sent=sum(status == "sent" for status, _ in ends),
        failed=sum(status == "failed" for status, _ in ends),
        calls=sum(count for _, count in ends),
        wrong=sum(end != (fate.status, fate.calls) for end in ends),
    )
