"""When a notification is expected to be sent: the rule is in docs/design.md, "Explain"."""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.explanation.facts import SLOWING, Expected
from notifier.domain.holds import quiet_until
from notifier.domain.quiet_hours import EXEMPT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from notifier.domain.explanation.facts import Blocker, Facts, QueueFacts, QueueRules

SPEED_MARGIN: Final = 2.0
"""The queue is expected to be sent at no less than half its present speed."""
SETTLING_S: Final = 5.0
"""For so long the end of a pause or of a rest may take to reach every process and row."""
LIMITED: Final = frozenset({Limit.RATE, Limit.CONNECTIONS, Limit.CONSUMERS})
"""With these limits a queue has a backlog: it is sent as fast as it can be at present."""
_SECOND: Final = timedelta(seconds=1)


def expected_of(facts: Facts, blockers: Sequence[Blocker]) -> Expected | None:
    """Return when a notification is expected to be sent.

    None if something holds it whose end is not known, and if it would expire before.
    """
    stops = [blocker for blocker in blockers if blocker.kind not in SLOWING]
    ends = [stop.ends_at for stop in stops if stop.ends_at is not None]
    rules = facts.queue.rules
    if rules is None or len(ends) < len(stops):
        return None
    now, expires_at = facts.row.as_of_at, facts.row.expires_at
    ended_at = max([now, *ends])
    earliest_at = _not_quiet(facts, ended_at)
    latest_at: datetime | None = None
    if earliest_at == ended_at and not any(stop.moves_it for stop in stops):
        earliest_at, latest_at = _by_its_place(facts, rules, stops, ended_at)
    if earliest_at >= expires_at:
        return None
    return Expected(
        max(now, earliest_at.replace(microsecond=0)),
        None if latest_at is None else min(_rounded_up(latest_at), expires_at),
    )


def _by_its_place(
    facts: Facts, rules: QueueRules, stops: Sequence[Blocker], free_at: datetime
) -> Expected:
    """Return when it is sent if it is held until `free_at` and keeps its place."""
    expires_at = facts.row.expires_at
    sent_from = max([facts.row.as_of_at, *_ends_of_queue(stops)])
    earliest_at = _after(sent_from, _least_wait_s(facts, rules), expires_at)
    wait_s = _greatest_wait_s(facts)
    if wait_s is None:
        return Expected(max(free_at, earliest_at), None)
    latest_at = _after(free_at, wait_s + rules.target_wait_s + SETTLING_S, expires_at)
    return Expected(max(free_at, earliest_at), latest_at)


def _after(at: datetime, span_s: float, limit: datetime) -> datetime:
    """Return the instant so much later, or the limit if that comes first."""
    is_within = span_s < (limit - at).total_seconds()
    return at + timedelta(seconds=span_s) if is_within else limit


def _not_quiet(facts: Facts, at: datetime) -> datetime:
    """Return the instant, or the end of the quiet hours that hold then."""
    hours = facts.holds.quiet_hours.get(facts.row.tenant)
    end = quiet_until(hours, facts.row.queue.priority, facts.row.content, at)
    return at if end is None else end


def _ends_of_queue(stops: Sequence[Blocker]) -> Iterator[datetime]:
    """Yield until when those that stand before it are not sent either."""
    for stop in stops:
        if stop.is_of_queue and stop.ends_at is not None:
            yield stop.ends_at


def _least_wait_s(facts: Facts, rules: QueueRules) -> float:
    """Return how long those before it take at least: only the provider's rate is a firm bound.

    While there are holds, some of them may be put off without a call.
    """
    rate, holds = rules.provider_rate_per_s, facts.holds
    has_quiet_hours = holds.quiet_hours and facts.row.queue.priority not in EXEMPT
    if rate is None or holds.scopes or has_quiet_hours:
        return 0.0
    return max(0, facts.ahead.count - facts.queue.may_overtake) / rate


def _greatest_wait_s(facts: Facts) -> float | None:
    """Return how long those before it take at half the present speed; None if it is unknown."""
    if facts.ahead.at_most == 0:
        return 0.0
    speed = _speed(facts.queue)
    if facts.ahead.at_most is None or not speed:
        return None
    return SPEED_MARGIN * facts.ahead.at_most / speed


def _speed(queue: QueueFacts) -> float | None:
    """Return the calls per second that are measured, or possible where nothing is limited."""
    if queue.potential_per_s is None or queue.limited_by not in LIMITED:
        return queue.potential_per_s
    return min(queue.done_per_s, queue.potential_per_s)


def _rounded_up(at: datetime) -> datetime:
    return at.replace(microsecond=0) + _SECOND * ceil(at.microsecond / 1_000_000)
