"""An explanation of any facts: its order, what it expects, and what a tenant sees of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Final

from hypothesis import assume, given
from hypothesis import strategies as st

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.breaker import Opening
from notifier.domain.controls import Breaker, BreakerState, Pause, Scope, ScopeKind
from notifier.domain.due import DueClass
from notifier.domain.explanation.ahead import coarse
from notifier.domain.explanation.blockers import blockers_of
from notifier.domain.explanation.explain import OF_TENANT, explain
from notifier.domain.explanation.facts import (
    SLOWING,
    Ahead,
    Facts,
    LastAttempt,
    QueueFacts,
    QueueRules,
    WaitingRow,
)
from notifier.domain.holds import Holds
from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey, Status
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import TenantId
from tests.builders import new_id

NOW: Final = datetime(2026, 11, 28, 18, 42, 7, 123456, tzinfo=UTC)
SHOP: Final = TenantId("shop")
ID: Final = NotificationId(new_id())
SECOND: Final = timedelta(seconds=1)
DAY: Final = timedelta(days=1)
SECONDS: Final = st.floats(0, 100_000)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def pauses(kind: ScopeKind, name: str) -> st.SearchStrategy[Pause]:
    return st.builds(
        Pause,
        scope=st.just(Scope(kind, name)),
        note=st.sampled_from(["", "wrong price"]),
        age_s=st.just(1.0),
        paused_at=st.just(NOW),
        expires_at=st.none() | SECONDS.map(later),
        expires_in_s=st.none(),
    )


BREAKERS: Final = st.builds(
    Breaker,
    provider=st.just("relay"),
    state=st.sampled_from([BreakerState.OPEN, BreakerState.HALF_OPEN]),
    reason=st.sampled_from(list(Opening)).map(str),
    age_s=st.just(1.0),
    probe_in_s=st.just(1.0),
    is_mine=st.just(False),
    since_at=st.just(NOW),
    probe_at=st.floats(-10, 900).map(later),
    openings=st.integers(1, 3),
    code=st.sampled_from(["", "503"]),
)
HOURS: Final = st.builds(
    QuietHours,
    start=st.integers(0, 11).map(time),
    end=st.integers(12, 23).map(time),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)
HOLDS: Final = st.builds(
    Holds,
    tenants=st.dictionaries(st.just(SHOP), pauses(ScopeKind.TENANT, "shop")),
    tags=st.dictionaries(st.just("sale"), pauses(ScopeKind.TAG, "sale")),
    quiet_hours=st.dictionaries(st.just(SHOP), HOURS),
)
ROWS: Final = st.builds(
    WaitingRow,
    id=st.just(ID),
    status=st.just(Status.QUEUED),
    queue=st.builds(QueueKey, st.just(Channel("email")), st.sampled_from(list(Priority))),
    as_of_at=st.just(NOW),
    expires_at=st.floats(0.001, 300_000).map(later),
    tenant=st.just(SHOP),
    tag=st.none() | st.just("sale"),
    due_class=st.sampled_from(list(DueClass)),
    claim=st.integers(0, 3),
    due_at=st.floats(-1000, 100_000).map(later),
    content=st.sampled_from([b"", b'{"time_zone":"Asia/Tokyo"}', b'{"time_zone":7}', b"{"]),
    parked_by=st.none() | st.just(Scope(ScopeKind.TENANT, "shop")),
    last_attempt=st.none() | st.just(LastAttempt(1, "relay", "unavailable", "503")),
)
SPEEDS: Final = st.floats(0, 1000)
RULES: Final = st.builds(
    QueueRules,
    provider=st.just("relay"),
    provider_rate_per_s=st.none() | st.floats(0.01, 1000),
    consumer_rate_per_s=st.none() | st.floats(0.01, 100),
    target_wait_s=st.floats(0.1, 100),
)
QUEUES: Final = st.builds(
    QueueFacts,
    rules=st.none() | RULES,
    pauses=st.lists(pauses(ScopeKind.QUEUE, "email.low"), max_size=1),
    breakers=st.lists(BREAKERS, max_size=1),
    refusal=st.none() | st.just("other arguments"),
    limited_by=st.sampled_from([*Limit, "", "no_worker", "of a later version"]),
    limited_by_detail=st.none(),
    workers=st.integers(0, 3),
    consumers=st.integers(0, 100),
    busy=st.integers(0, 100),
    done_per_s=SPEEDS,
    potential_per_s=st.none() | SPEEDS,
    may_overtake=st.integers(0, 500),
)


@st.composite
def aheads(draw: st.DrawFn) -> Ahead:
    count = draw(st.integers(0, 9999) | st.integers(0, 200))
    if draw(st.booleans()):
        return Ahead(count, is_exact=False, at_most=None)
    return Ahead(count, is_exact=True, at_most=count + draw(st.integers(0, 3 * count)))


FACTS: Final = st.builds(
    Facts,
    row=ROWS,
    queue=QUEUES,
    holds=HOLDS,
    ahead=aheads(),
    authors=st.just({Scope(ScopeKind.TENANT, "shop"): "key:8Rk2vQ0ZpLx1"}),
)


@given(FACTS)
def test_what_is_expected_lies_between_now_and_the_end_of_its_time(facts: Facts) -> None:
    explanation = explain(facts, is_for_tenant=False)
    stops = [each for each in explanation.blockers if each.kind not in SLOWING]
    expected, expires_at = explanation.expected, facts.row.expires_at
    if expected is None:
        if all(stop.ends_at is not None for stop in stops):
            lasting = replace(facts, row=replace(facts.row, expires_at=NOW + 10_000 * DAY))
            earlier = explain(lasting, is_for_tenant=False).expected
            assert earlier is not None
            assert earlier.earliest_at > expires_at - SECOND
        return
    assert all(stop.ends_at is not None for stop in stops)
    assert NOW <= expected.earliest_at < expires_at
    for stop in stops:
        assert stop.ends_at is not None
        assert stop.ends_at - SECOND < expected.earliest_at
    if expected.latest_at is not None:
        assert expected.earliest_at <= expected.latest_at <= expires_at


@given(FACTS)
def test_what_only_delays_comes_last_and_of_known_ends_the_last_one_first(facts: Facts) -> None:
    blockers = blockers_of(facts)
    is_delay = [blocker.kind in SLOWING for blocker in blockers]
    assert is_delay == sorted(is_delay)
    ends = [blocker.ends_at for blocker in blockers if blocker.ends_at is not None]
    assert ends == sorted(ends, reverse=True)


@given(FACTS)
def test_a_tenant_sees_the_same_blockers_and_a_wider_range(facts: Facts) -> None:
    full = explain(facts, is_for_tenant=False)
    seen = explain(facts, is_for_tenant=True)
    assert [(each.name, each.until_at) for each in full.blockers if each.kind != "rate"] == [
        (each.name, each.until_at) for each in seen.blockers if each.kind != "rate"
    ]
    assert all(each.detail is None for each in seen.blockers if each.kind not in OF_TENANT)
    assert seen.ahead.count <= full.ahead.count
    if full.expected is None or seen.expected is None:
        # A wider range may begin before the notification expires.
        assert full.expected is None
        return
    assert seen.expected.earliest_at <= full.expected.earliest_at
    if full.expected.latest_at is None:
        assert seen.expected.latest_at is None
    else:
        assert seen.expected.latest_at is not None
        assert seen.expected.latest_at >= full.expected.latest_at


@given(ahead=aheads())
def test_a_coarse_number_holds_the_exact_one(ahead: Ahead) -> None:
    shown = coarse(ahead)
    assert shown.count <= ahead.count
    assert len(str(shown.count).rstrip("0")) <= 2 or shown == ahead
    if ahead.at_most is not None:
        assert shown.at_most is not None
        assert shown.at_most >= ahead.at_most


@st.composite
def sent_queues(draw: st.DrawFn) -> QueueFacts:
    """Queues that are sent, or will be after a pause: they do not exceed their provider's rate."""
    rules = draw(RULES)
    speed = draw(st.floats(0.01, min(1000.0, rules.provider_rate_per_s or 1000.0)))
    return QueueFacts(
        rules=rules,
        pauses=draw(st.lists(pauses(ScopeKind.QUEUE, "email.low"), max_size=1)),
        limited_by=draw(st.sampled_from([Limit.NEED, Limit.RATE, Limit.CONSUMERS, Limit.PAUSE])),
        workers=1,
        done_per_s=speed,
        potential_per_s=speed,
        may_overtake=draw(st.integers(0, 500)),
    )


@given(
    queue=sent_queues(),
    ahead=aheads(),
    share=st.floats(0.5, 1),
    overtaken=st.floats(0, 1),
    overtaking=st.floats(0, 1),
)
def test_a_queue_that_keeps_half_its_speed_sends_the_notification_in_the_expected_range(
    queue: QueueFacts, ahead: Ahead, share: float, overtaken: float, overtaking: float
) -> None:
    """Some that stand before it are overtaken, and others that come later overtake it."""
    begin = queue.pauses[0].expires_at if queue.pauses else NOW
    assume(begin is not None)
    assume(ahead.at_most is not None)
    assert begin is not None
    assert ahead.at_most is not None
    row = WaitingRow(
        id=ID,
        status=Status.QUEUED,
        queue=QueueKey(Channel("email"), Priority.LOW),
        as_of_at=NOW,
        expires_at=NOW + 10_000 * DAY,
        tenant=SHOP,
        tag=None,
        due_class=DueClass.FIRST,
        claim=0,
        due_at=NOW,
    )
    expected = explain(Facts(row=row, queue=queue, ahead=ahead), is_for_tenant=False).expected
    assert expected is not None
    assert expected.latest_at is not None
    before = (
        ahead.count
        - int(overtaken * min(queue.may_overtake, ahead.count))
        + int(overtaking * (ahead.at_most - ahead.count))
    )
    assert queue.potential_per_s is not None
    sent_at = begin + timedelta(seconds=before / (share * queue.potential_per_s))
    assert expected.earliest_at <= sent_at <= expected.latest_at
