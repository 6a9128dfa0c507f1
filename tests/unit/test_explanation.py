"""Why a notification waits: which blockers are named, in which order, and what is expected."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import pytest

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import Breaker, BreakerState, Pause, Scope, ScopeKind
from notifier.domain.due import DueClass, Position
from notifier.domain.explanation.ahead import ahead_of, coarse, rows_before
from notifier.domain.explanation.explain import explain
from notifier.domain.explanation.facts import (
    Ahead,
    BlockerKind,
    ClassCount,
    Expected,
    Explanation,
    Facts,
    LastAttempt,
    QueueFacts,
    QueueRules,
    WaitingRow,
)
from notifier.domain.holds import Holds
from notifier.domain.notification import Status
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import TenantId
from notifier.scheduling.deployment_status import NO_CHANNEL, NO_WORKER
from tests.builders import EMAIL_HIGH, EMAIL_LOW, new_id

NOW: Final = datetime(2026, 11, 28, 18, 42, 7, tzinfo=UTC)
SHOP: Final = TenantId("shop")
SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
RULES: Final = QueueRules(
    provider="relay",
    provider_rate_per_s=None,
    consumer_rate_per_s=None,
    target_wait_s=60.0,
)
LIMITED: Final = replace(RULES, provider_rate_per_s=50.0)
RUNNING: Final = QueueFacts(
    rules=RULES, workers=2, consumers=10, busy=10, done_per_s=40.0, potential_per_s=80.0
)
NIGHT: Final = QuietHours(start=time(18), end=time(8), time_zone="UTC")
MORNING: Final = datetime(2026, 11, 29, 8, tzinfo=UTC)


def a_row(**changes: Any) -> WaitingRow:
    return replace(
        WaitingRow(
            id=new_id(),
            status=Status.QUEUED,
            queue=EMAIL_LOW,
            as_of_at=NOW,
            expires_at=NOW + 72 * HOUR,
            tenant=SHOP,
            tag="sale",
            due_class=DueClass.FIRST,
            claim=0,
            due_at=NOW - SECOND,
        ),
        **changes,
    )


def a_pause(kind: ScopeKind, name: str, until_at: datetime | None = None) -> Pause:
    return Pause(
        scope=Scope(kind, name),
        note="wrong newsletter",
        age_s=60.0,
        paused_at=NOW - MINUTE,
        expires_at=until_at,
        expires_in_s=None,
    )


def a_breaker(
    reason: str = "configuration",
    *,
    state: BreakerState = BreakerState.OPEN,
    probe_at: datetime = NOW + 5 * SECOND,
    openings: int = 1,
) -> Breaker:
    return Breaker(
        provider="relay",
        state=state,
        reason=reason,
        age_s=1.0,
        probe_in_s=5.0,
        is_mine=False,
        since_at=NOW - SECOND,
        probe_at=probe_at,
        openings=openings,
        code="554",
    )


def tenant_pause(until_at: datetime | None = None) -> Holds:
    return Holds(tenants={SHOP: a_pause(ScopeKind.TENANT, "shop", until_at)})


def exactly(count: int) -> Ahead:
    return Ahead(count, is_exact=True, at_most=count)


def explained(
    row: WaitingRow | None = None,
    queue: QueueFacts = RUNNING,
    *,
    is_for_tenant: bool = False,
    **more: Any,
) -> Explanation:
    facts = Facts(row=row or a_row(), queue=queue, **more)
    return explain(facts, is_for_tenant=is_for_tenant)


def kinds(explanation: Explanation) -> list[str]:
    return [blocker.kind.value for blocker in explanation.blockers]


def shown(explanation: Explanation) -> list[tuple[str, str | None, datetime | None, str | None]]:
    return [
        (blocker.kind.value, blocker.name, blocker.until_at, blocker.detail)
        for blocker in explanation.blockers
    ]


def test_what_is_due_and_first_in_a_queue_that_is_sent_is_held_by_nothing() -> None:
    explanation = explained()
    assert explanation.blockers == []
    # The promised wait, and the time that changes take.
    assert explanation.expected == Expected(NOW, NOW + 65 * SECOND)


def test_every_limit_of_a_queue_but_need_is_a_kind_of_blocker() -> None:
    limits = {*Limit, NO_WORKER, NO_CHANNEL} - {Limit.NEED}
    assert limits <= {kind.value for kind in BlockerKind}


def test_its_own_time_is_named_with_its_reason() -> None:
    due_at = NOW + HOUR
    scheduled = explained(a_row(status=Status.SCHEDULED, due_at=due_at))
    assert shown(scheduled) == [("scheduled", None, due_at, None)]
    last = LastAttempt(3, "relay", "unavailable", "503")
    retry = a_row(due_class=DueClass.RETRY, due_at=due_at, claim=3, last_attempt=last)
    assert shown(explained(retry)) == [("retry", "relay", due_at, "attempt 3: unavailable 503")]
    for explanation in (scheduled, explained(retry)):
        assert explanation.expected == Expected(due_at, due_at + 65 * SECOND)


def test_a_retry_that_is_due_is_no_blocker() -> None:
    row = a_row(due_class=DueClass.RETRY, claim=3, last_attempt=LastAttempt(3, "relay", "x", ""))
    assert kinds(explained(row)) == []


def test_every_pause_is_named_with_its_author_and_note_and_the_last_end_comes_first() -> None:
    soon, late = NOW + MINUTE, NOW + HOUR
    queue = replace(
        RUNNING,
        pauses=[
            a_pause(ScopeKind.QUEUE, "email.low", soon),
            a_pause(ScopeKind.CHANNEL, "email", late),
        ],
    )
    holds = Holds(tags={"sale": a_pause(ScopeKind.TAG, "sale", NOW + 2 * HOUR)})
    authors = {Scope(ScopeKind.CHANNEL, "email"): "key:8Rk2vQ0ZpLx1"}
    explanation = explained(queue=queue, holds=holds, authors=authors)
    assert shown(explanation) == [
        ("pause", "tag:sale", NOW + 2 * HOUR, "wrong newsletter"),
        ("pause", "channel:email", late, "by key:8Rk2vQ0ZpLx1: wrong newsletter"),
        ("pause", "queue:email.low", soon, "wrong newsletter"),
    ]


def test_pauses_of_other_tenants_and_tags_hold_nothing() -> None:
    holds = Holds(
        tenants={TenantId("bank"): a_pause(ScopeKind.TENANT, "bank")},
        tags={"news": a_pause(ScopeKind.TAG, "news")},
    )
    assert kinds(explained(holds=holds)) == []
    assert kinds(explained(a_row(tag=None), holds=holds)) == []


def test_a_parked_row_is_held_by_its_pause_and_not_by_its_due_time() -> None:
    scope = Scope(ScopeKind.TENANT, "shop")
    row = a_row(status=Status.SCHEDULED, claim=1, due_at=NOW + MINUTE, parked_by=scope)
    explanation = explained(row, holds=tenant_pause(NOW + 20 * MINUTE))
    assert kinds(explanation) == ["pause"]
    # Where it will stand when the pause ends is not known.
    assert explanation.expected == Expected(NOW + 20 * MINUTE, None)
    ended = explained(row)
    assert [(blocker.kind, blocker.name) for blocker in ended.blockers] == [
        (BlockerKind.PAUSE, "tenant:shop")
    ]
    assert ended.expected == Expected(NOW, None)


def test_quiet_hours_hold_what_is_due_and_what_is_due_in_them_but_nothing_urgent() -> None:
    holds = Holds(quiet_hours={SHOP: NIGHT})
    by_now = explained(holds=holds)
    assert shown(by_now) == [("quiet_hours", "shop", MORNING, "18:00 to 08:00, UTC")]
    assert by_now.expected == Expected(MORNING, None)
    row = a_row(status=Status.SCHEDULED, due_at=NOW + HOUR)
    assert kinds(explained(row, holds=holds)) == ["quiet_hours", "scheduled"]
    assert kinds(explained(a_row(queue=EMAIL_HIGH), holds=holds)) == []
    after = a_row(status=Status.SCHEDULED, due_at=MORNING + HOUR)
    assert kinds(explained(after, holds=holds)) == ["scheduled"]


def test_the_quiet_hours_are_those_of_the_time_zone_that_the_notification_names() -> None:
    holds = Holds(quiet_hours={SHOP: NIGHT})
    awake = a_row(content=b'{"time_zone":"Etc/GMT+8"}')
    assert kinds(explained(awake, holds=holds)) == []
    asleep = a_row(content=b'{"time_zone":"Etc/GMT-3"}')
    [blocker] = explained(asleep, holds=holds).blockers
    assert blocker.detail == "18:00 to 08:00, Etc/GMT-3"
    assert blocker.until_at == MORNING - 3 * HOUR


def test_what_quiet_hours_have_put_off_keeps_its_time_and_its_place() -> None:
    due_at = MORNING + 30 * SECOND
    row = a_row(status=Status.SCHEDULED, claim=1, due_at=due_at)
    for holds in (Holds(quiet_hours={SHOP: NIGHT}), Holds()):
        explanation = explained(row, holds=holds, ahead=exactly(400))
        assert [(each.kind, each.until_at) for each in explanation.blockers] == [
            (BlockerKind.QUIET_HOURS, due_at)
        ]
        assert explanation.expected == Expected(due_at, due_at + 75 * SECOND)


def test_a_pause_that_ends_in_quiet_hours_leaves_it_for_the_morning() -> None:
    holds = replace(tenant_pause(NOW + HOUR), quiet_hours={SHOP: NIGHT})
    awake_now = a_row(as_of_at=NOW - HOUR, due_at=NOW - HOUR)
    explanation = explained(awake_now, holds=holds)
    assert kinds(explanation) == ["pause"]
    assert explanation.expected == Expected(MORNING, None)


def test_an_open_breaker_is_named_with_its_next_probe_and_nothing_can_be_expected() -> None:
    queue = replace(RUNNING, breakers=[a_breaker()])
    explanation = explained(queue=queue)
    assert shown(explanation) == [("breaker", "relay", NOW + 5 * SECOND, "configuration 554")]
    assert explanation.expected is None
    probed = replace(RUNNING, breakers=[a_breaker(state=BreakerState.HALF_OPEN)])
    assert [blocker.until_at for blocker in explained(queue=probed).blockers] == [None]
    overdue = replace(RUNNING, breakers=[a_breaker(probe_at=NOW)])
    assert [blocker.until_at for blocker in explained(queue=overdue).blockers] == [None]


def test_a_rest_that_the_provider_asked_for_has_an_end_until_its_probe_fails() -> None:
    rest_ends_at = NOW + 30 * SECOND
    resting = replace(RUNNING, breakers=[a_breaker("throttled", probe_at=rest_ends_at)])
    assert explained(queue=resting).expected == Expected(rest_ends_at, rest_ends_at + 65 * SECOND)
    again = replace(RUNNING, breakers=[a_breaker("throttled", probe_at=rest_ends_at, openings=2)])
    assert explained(queue=again).expected is None


@pytest.mark.parametrize(
    ("queue", "kind"),
    [
        (replace(RUNNING, workers=0), "no_worker"),
        (replace(RUNNING, refusal="other arguments"), "broker"),
        (replace(RUNNING, limited_by=Limit.HANG), "hang"),
        (replace(RUNNING, rules=None), "no_channel"),
        (replace(RUNNING, pauses=[a_pause(ScopeKind.QUEUE, "email.low")]), "pause"),
    ],
)
def test_nothing_can_be_expected_while_a_blocker_has_no_known_end(
    queue: QueueFacts, kind: str
) -> None:
    explanation = explained(queue=queue)
    assert kinds(explanation) == [kind]
    assert explanation.expected is None


def test_what_stops_the_queue_is_named_before_it_is_due_and_what_delays_it_is_not() -> None:
    row = a_row(status=Status.SCHEDULED, due_at=NOW + HOUR)
    queue = replace(RUNNING, breakers=[a_breaker()], limited_by=Limit.CONSUMERS)
    assert kinds(explained(row, queue, ahead=exactly(10))) == ["scheduled", "breaker"]


@pytest.mark.parametrize(
    ("limit", "name", "detail"),
    [
        (Limit.RATE, "relay", "50 calls per second"),
        (Limit.CONNECTIONS, "relay", "10 calls run, and no connection is free for more"),
        (Limit.CONSUMERS, "email.low", "10 of its 10 consumers are sending"),
    ],
)
def test_a_limit_of_the_queue_is_named_before_those_that_stand_before_it(
    limit: Limit, name: str, detail: str
) -> None:
    queue = replace(RUNNING, rules=LIMITED, limited_by=limit)
    assert shown(explained(queue=queue, ahead=exactly(17))) == [
        (limit.value, name, None, detail),
        ("behind", "email.low", None, "17 stand before it"),
    ]


def test_the_rate_that_limits_most_is_named() -> None:
    each = replace(LIMITED, consumer_rate_per_s=2.0)
    queue = replace(RUNNING, rules=each, limited_by=Limit.RATE)
    [blocker] = explained(queue=queue).blockers
    assert (blocker.name, blocker.detail) == (
        "email",
        "2 calls per second for each of 10 consumers",
    )
    [blocker] = explained(queue=replace(queue, consumers=30)).blockers
    assert (blocker.name, blocker.detail) == ("relay", "50 calls per second")
    unknown = replace(queue, rules=RULES)  # the workers have other settings
    [blocker] = explained(queue=unknown).blockers
    assert (blocker.kind, blocker.name, blocker.detail) == (BlockerKind.RATE, "relay", None)


def test_the_rate_is_named_beside_a_pause_if_it_alone_makes_it_late() -> None:
    until_at = datetime(2026, 11, 28, 19, 10, tzinfo=UTC)
    pause = a_pause(ScopeKind.QUEUE, "email.low", until_at)
    queue = replace(RUNNING, rules=LIMITED, limited_by=Limit.PAUSE, pauses=[pause])
    queue = replace(queue, potential_per_s=50.0, done_per_s=0.0, may_overtake=60)
    explanation = explained(queue=queue, ahead=exactly(4210))
    assert kinds(explanation) == ["pause", "rate", "behind"]
    # (4,210 - 60) / 50 s and 2 * 4,210 / 50 s + 60 s + 5 s after the end of the pause.
    assert explanation.expected == Expected(
        datetime(2026, 11, 28, 19, 11, 23, tzinfo=UTC),
        datetime(2026, 11, 28, 19, 13, 54, tzinfo=UTC),
    )
    assert kinds(explained(queue=queue, ahead=exactly(2000))) == ["pause", "behind"]


def test_the_speed_is_the_measured_one_where_the_queue_is_limited() -> None:
    limited = replace(RUNNING, limited_by=Limit.CONSUMERS)
    assert explained(queue=limited, ahead=exactly(400)).expected == Expected(NOW, NOW + 85 * SECOND)
    needs_no_more = replace(RUNNING, limited_by=Limit.NEED)
    assert explained(queue=needs_no_more, ahead=exactly(400)).expected == Expected(
        NOW, NOW + 75 * SECOND
    )
    fast_for_a_moment = replace(limited, done_per_s=300.0)
    assert explained(queue=fast_for_a_moment, ahead=exactly(400)).expected == Expected(
        NOW, NOW + 75 * SECOND
    )


@pytest.mark.parametrize(
    ("queue", "ahead"),
    [
        (replace(RUNNING, potential_per_s=None), exactly(1)),
        (replace(RUNNING, limited_by=Limit.CONSUMERS, done_per_s=0.0), exactly(1)),
        (RUNNING, Ahead(10_000, is_exact=False, at_most=None)),
    ],
)
def test_nobody_knows_how_late_without_a_speed_or_a_number(queue: QueueFacts, ahead: Ahead) -> None:
    assert explained(queue=queue, ahead=ahead).expected == Expected(NOW, None)


def test_while_there_are_holds_others_may_leave_its_way_without_a_call() -> None:
    queue = replace(RUNNING, rules=LIMITED)
    before = exactly(500)
    assert explained(queue=queue, ahead=before).expected == Expected(
        NOW + 10 * SECOND, NOW + 78 * SECOND
    )
    others = Holds(tenants={TenantId("bank"): a_pause(ScopeKind.TENANT, "bank")})
    explanation = explained(queue=queue, ahead=before, holds=others)
    assert explanation.expected == Expected(NOW, NOW + 78 * SECOND)
    of_others = Holds(quiet_hours={TenantId("bank"): NIGHT})
    for priority, earliest_at in ((EMAIL_LOW, NOW), (EMAIL_HIGH, NOW + 10 * SECOND)):
        explanation = explained(a_row(queue=priority), queue, ahead=before, holds=of_others)
        assert explanation.expected is not None
        assert explanation.expected.earliest_at == earliest_at


def test_what_expires_before_it_could_be_sent_is_not_expected() -> None:
    due_at = NOW + HOUR
    row = a_row(status=Status.SCHEDULED, due_at=due_at, expires_at=due_at + MINUTE)
    assert explained(row).expected == Expected(due_at, due_at + MINUTE)
    holds = tenant_pause(due_at + MINUTE)
    assert explained(row, holds=holds).expected is None


@pytest.mark.parametrize("tiny", [1e-9, 5e-324])
def test_a_speed_or_rate_of_almost_nothing_ends_with_its_time(tiny: float) -> None:
    slow = replace(RUNNING, potential_per_s=tiny)
    assert explained(queue=slow, ahead=exactly(9999)).expected == Expected(NOW, NOW + 72 * HOUR)
    limited = replace(slow, rules=replace(RULES, provider_rate_per_s=tiny))
    assert explained(queue=limited, ahead=exactly(9999)).expected is None


def test_a_tenant_sees_no_notes_authors_or_figures_and_two_digits_of_others_volume() -> None:
    queue = replace(
        RUNNING,
        rules=LIMITED,
        limited_by=Limit.RATE,
        pauses=[a_pause(ScopeKind.QUEUE, "email.low", NOW + HOUR)],
        breakers=[a_breaker()],
    )
    last = LastAttempt(1, "relay", "unavailable", "503")
    holds = replace(tenant_pause(), quiet_hours={SHOP: NIGHT})
    authors = dict.fromkeys([Scope(ScopeKind.TENANT, "shop")], "key:8Rk2vQ0ZpLx1")
    row = a_row(last_attempt=last)
    explanation = explained(
        row, queue, holds=holds, authors=authors, ahead=exactly(4217), is_for_tenant=True
    )
    assert shown(explanation) == [
        ("pause", "tenant:shop", None, None),
        ("quiet_hours", "shop", MORNING, "18:00 to 08:00, UTC"),
        ("pause", "queue:email.low", NOW + HOUR, None),
        ("breaker", "relay", NOW + 5 * SECOND, None),
        ("rate", "relay", None, None),
        ("behind", "email.low", None, "at least 4,200 stand before it"),
    ]
    assert (explanation.ahead.count, explanation.ahead.is_exact) == (4200, False)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (exactly(0), exactly(0)),
        (exactly(99), exactly(99)),
        (exactly(100), Ahead(100, is_exact=False, at_most=110)),
        (Ahead(4217, is_exact=True, at_most=5622), Ahead(4200, is_exact=False, at_most=5700)),
        (Ahead(10_000, is_exact=False, at_most=None), Ahead(10_000, is_exact=False, at_most=None)),
    ],
)
def test_a_coarse_count_has_two_digits_and_hides_no_row(ahead: Ahead, expected: Ahead) -> None:
    assert coarse(ahead) == expected


@pytest.mark.parametrize(
    ("due_class", "expected"),
    [
        (DueClass.BACK, Ahead(7, is_exact=True, at_most=7)),
        # 7 + 50 + 10, and every fourth row that is published until then is a retry.
        (DueClass.FIRST, Ahead(87, is_exact=True, at_most=87)),
        (DueClass.DIRECT, Ahead(87, is_exact=True, at_most=87)),
        # 7 + 200, and three first attempts for each retry.
        (DueClass.RETRY, Ahead(267, is_exact=True, at_most=810)),
    ],
)
def test_the_rows_before_it_follow_the_order_in_which_classes_are_read(
    due_class: DueClass, expected: Ahead
) -> None:
    counts = {
        DueClass.BACK: ClassCount(7, is_exact=True),
        DueClass.FIRST: ClassCount(50, is_exact=True),
        DueClass.DIRECT: ClassCount(10, is_exact=True),
        DueClass.RETRY: ClassCount(200, is_exact=True),
    }
    assert ahead_of(due_class, counts) == expected
    cut = {**counts, due_class: ClassCount(counts[due_class].count, is_exact=False)}
    assert ahead_of(due_class, cut) == Ahead(expected.count, is_exact=False, at_most=None)


def test_rows_of_its_own_class_count_up_to_its_place_and_others_up_to_its_time() -> None:
    row = a_row(due_at=NOW + HOUR)
    place = Position(row.due_at, row.id)
    until = rows_before(row)
    assert (until[DueClass.FIRST], until[DueClass.DIRECT]) == (place, place)
    for other in (DueClass.BACK, DueClass.RETRY):
        assert until[other] > place
        assert until[other].due_at == row.due_at
    late = a_row(due_class=DueClass.RETRY)
    assert rows_before(late)[DueClass.FIRST].due_at == NOW
    given_back = a_row(due_class=DueClass.BACK)
    assert rows_before(given_back) == {DueClass.BACK: Position(given_back.due_at, given_back.id)}
