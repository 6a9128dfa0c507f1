"""Everything that holds a notification that waits, the most decisive first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.breaker import Opening
from notifier.domain.controls import BreakerState
from notifier.domain.due import DueClass
from notifier.domain.explanation.facts import SLOWING, Blocker, BlockerKind
from notifier.domain.holds import quiet_until, time_zone_of
from notifier.domain.tenants import tenant_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from notifier.domain.controls import Breaker, Pause
    from notifier.domain.explanation.facts import Ahead, Facts, QueueRules
    from notifier.domain.quiet_hours import QuietHours

HEALING: Final = frozenset({BlockerKind.BREAKER, BlockerKind.HANG})
"""What ends by itself, though nobody knows when."""


def blockers_of(facts: Facts) -> Sequence[Blocker]:
    """Return everything that holds a notification, the most decisive first.

    What stops its queue is also named for one that is not due yet: it would hold it if it were due.
    First comes what ends by nobody but a person, then what ends at a known time, the last end
    first, then what heals by itself, then what only delays.
    """
    found = [*_of_its_time(facts), *_of_holds(facts), *_of_queue(facts)]
    if facts.row.is_due:
        found += _while_due(facts)
    return sorted(found, key=_decisiveness)


def _decisiveness(blocker: Blocker) -> tuple[int, float]:
    if blocker.kind in SLOWING:
        return 3, SLOWING.index(blocker.kind)
    if blocker.ends_at is not None:
        return 1, -blocker.ends_at.timestamp()
    return (2 if blocker.kind in HEALING else 0), 0.0


def _of_its_time(facts: Facts) -> Iterator[Blocker]:
    """Yield what its own due time means: it is scheduled, retried or put off."""
    row = facts.row
    if row.is_due:
        return
    if row.is_parked:
        yield from _of_parking(facts)
        return
    due_at, last = row.due_at, row.last_attempt
    if row.due_class is DueClass.RETRY and last is not None:
        yield Blocker(
            kind=BlockerKind.RETRY,
            name=last.provider or None,
            until_at=due_at,
            detail=_words(f"attempt {last.number}: {last.outcome}", last.code),
            ends_at=due_at,
        )
    elif row.due_class is DueClass.RETRY:
        yield Blocker(kind=BlockerKind.RETRY, until_at=due_at, ends_at=due_at)
    else:
        yield Blocker(kind=BlockerKind.SCHEDULED, until_at=due_at, ends_at=due_at)


def _of_parking(facts: Facts) -> Iterator[Blocker]:
    """Yield why a parked row is due later, unless a pause in force says it already."""
    row, parked_by = facts.row, facts.row.parked_by
    if parked_by is None:
        hours = facts.holds.quiet_hours.get(row.tenant)
        yield _quiet(facts, hours, row.due_at, moves_it=False)
    elif parked_by not in facts.holds.scopes:
        yield Blocker(
            kind=BlockerKind.PAUSE,
            name=str(parked_by),
            detail="has ended: what it held becomes due within seconds",
            ends_at=row.as_of_at,
            moves_it=True,
        )


def _of_holds(facts: Facts) -> Iterator[Blocker]:
    """Yield the pauses of its tenant and tag, and the quiet hours when it would be sent."""
    row, holds = facts.row, facts.holds
    for pause in holds.pauses_of(row.tenant, row.tag):
        yield _paused(facts, pause, is_of_queue=False)
    if row.is_parked and row.parked_by is None:
        return  # its time is the end of the quiet hours that put it off
    hours = holds.quiet_hours.get(row.tenant)
    at = row.as_of_at if row.is_parked else max(row.as_of_at, row.due_at)
    end = quiet_until(hours, row.queue.priority, row.content, at)
    if end is not None:
        yield _quiet(facts, hours, end, moves_it=True)


def _quiet(facts: Facts, hours: QuietHours | None, end: datetime, *, moves_it: bool) -> Blocker:
    return Blocker(
        kind=BlockerKind.QUIET_HOURS,
        name=tenant_name(facts.row.tenant),
        until_at=end,
        detail=None
        if hours is None
        else (
            f"{hours.start:%H:%M} to {hours.end:%H:%M}, "
            f"{time_zone_of(facts.row.content) or hours.time_zone}"
        ),
        ends_at=end,
        moves_it=moves_it,
    )


def _of_queue(facts: Facts) -> Iterator[Blocker]:
    """Yield what stops its whole queue."""
    row, queue = facts.row, facts.queue
    for pause in queue.pauses:
        yield _paused(facts, pause, is_of_queue=True)
    for breaker in queue.breakers:
        yield _opened(breaker, row.as_of_at)
    if queue.rules is None:
        yield Blocker(
            kind=BlockerKind.NO_CHANNEL,
            name=row.queue.channel,
            detail="no channel of the settings has this queue",
            is_of_queue=True,
        )
        return
    if queue.refusal is not None:
        yield Blocker(
            kind=BlockerKind.BROKER, name=str(row.queue), detail=queue.refusal, is_of_queue=True
        )
    if not queue.workers:
        yield Blocker(kind=BlockerKind.NO_WORKER, detail="no worker is running", is_of_queue=True)


def _paused(facts: Facts, pause: Pause, *, is_of_queue: bool) -> Blocker:
    author = facts.authors.get(pause.scope)
    by = f"by {author}" if author else ""
    return Blocker(
        kind=BlockerKind.PAUSE,
        name=str(pause.scope),
        until_at=pause.expires_at,
        detail=": ".join(each for each in (by, pause.note) if each) or None,
        ends_at=pause.expires_at,
        is_of_queue=is_of_queue,
        moves_it=not is_of_queue,
    )


def _opened(breaker: Breaker, now: datetime) -> Blocker:
    """Return the blocker that an open breaker is.

    Only of a provider that rests because it asked for it an end is known, and no longer than the
    first probe has not failed.
    """
    is_waiting = breaker.state is BreakerState.OPEN and breaker.probe_at > now
    probe_at = breaker.probe_at if is_waiting else None
    is_resting = breaker.reason == Opening.THROTTLED and breaker.openings <= 1
    return Blocker(
        kind=BlockerKind.BREAKER,
        name=breaker.provider,
        until_at=probe_at,
        detail=_words(breaker.reason, breaker.code),
        ends_at=probe_at if is_resting else None,
        is_of_queue=True,
    )


def _while_due(facts: Facts) -> Iterator[Blocker]:
    """Yield what delays a due notification: the limits of its queue, and those before it."""
    rules, ahead = facts.queue.rules, facts.ahead
    if rules is not None:
        yield from _limit(facts, rules)
    if ahead.count:
        at_least = "" if ahead.is_exact else "at least "
        yield Blocker(
            kind=BlockerKind.BEHIND,
            name=str(facts.row.queue),
            detail=f"{at_least}{ahead.count:,} stand before it",
        )


def _limit(facts: Facts, rules: QueueRules) -> Iterator[Blocker]:
    """Yield what limits the consumers of its queue, and the rate also if it is not that yet."""
    queue = facts.queue
    if queue.limited_by == Limit.HANG:
        yield Blocker(
            kind=BlockerKind.HANG,
            name=facts.row.queue.channel,
            detail=queue.limited_by_detail,
            is_of_queue=True,
        )
    elif queue.limited_by == Limit.CONNECTIONS:
        yield Blocker(
            kind=BlockerKind.CONNECTIONS,
            name=rules.provider,
            detail=f"{queue.busy} calls run, and no connection is free for more",
        )
    elif queue.limited_by == Limit.CONSUMERS:
        yield Blocker(
            kind=BlockerKind.CONSUMERS,
            name=str(facts.row.queue),
            detail=f"{queue.busy} of its {queue.consumers} consumers are sending",
        )
    if queue.limited_by == Limit.RATE or _is_held_by_rate(rules, facts.ahead):
        yield _rate(facts, rules)


def _is_held_by_rate(rules: QueueRules, ahead: Ahead) -> bool:
    """Whether the calls before it alone take longer, at the provider's rate, than was promised."""
    rate = rules.provider_rate_per_s
    return rate is not None and ahead.count / rate > rules.target_wait_s


def _rate(facts: Facts, rules: QueueRules) -> Blocker:
    """Return the rate that limits most: of the provider, or of the consumers together."""
    of_provider, of_each = rules.provider_rate_per_s, rules.consumer_rate_per_s
    if of_each is not None and (
        of_provider is None or of_each * facts.queue.consumers < of_provider
    ):
        return Blocker(
            kind=BlockerKind.RATE,
            name=facts.row.queue.channel,
            detail=f"{of_each:g} calls per second for each of {facts.queue.consumers} consumers",
        )
    return Blocker(
        kind=BlockerKind.RATE,
        name=rules.provider,
        detail=None if of_provider is None else f"{of_provider:g} calls per second",
    )


def _words(*texts: str) -> str | None:
    return " ".join(text for text in texts if text) or None
