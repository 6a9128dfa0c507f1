"""Which leases a process may acquire, gives up and hands over."""

from __future__ import annotations

from collections import Counter
from math import inf
from uuid import UUID

import pytest

from notifier.domain.liveness import (
    DEAD_AFTER_S,
    LEASE_FREE_AFTER_S,
    LEASE_INTERVAL_S,
    MAX_LEASE_READ_GAP_S,
)
from notifier.domain.notification import Channel, Priority, QueueKey, WorkerId
from notifier.ports.leases import HeldLease, Lease, Progress
from notifier.scheduling.cluster.lease import (
    GIVEN_UP_S,
    HAND_OVER_INTERVAL_S,
    HAND_OVER_RETRY_S,
    NEW_DELAY_S,
    RANK_DELAY_S,
    STALLED_AFTER_S,
    UNPUBLISHABLE_AFTER_S,
    LeasePolicy,
    LeaseWatch,
    rank,
)
from tests.builders import EMAIL_HIGH, QUEUES

WORKERS = ANN, BEN, COY = tuple(WorkerId(UUID(int=number)) for number in (1, 2, 3))
MANY_QUEUES = [
    QueueKey(Channel(f"channel{number}"), priority)
    for number in range(100)
    for priority in Priority
]


def a_lease(beat: int, holder: WorkerId | None = ANN, term: int = 1) -> Lease:
    return Lease(EMAIL_HIGH, holder, term, beat, is_backlogged=False)


RELEASED = a_lease(1, holder=None)


def read(watch: LeaseWatch, lease: Lease, at: float, answered_at: float | None = None) -> float:
    watch.read_succeeded([lease], requested_at=at, answered_at=answered_at or at)
    return watch.free_s(EMAIL_HIGH)


def read_every_round(watch: LeaseWatch, lease: Lease, begin: float, end: float) -> float:
    """Read the same lease every 0.5 s; returns for how long it is free at the end."""
    free_s, at = -inf, begin
    while at <= end:
        free_s = read(watch, lease, at)
        at += LEASE_INTERVAL_S
    return free_s


def in_rank_order(queue: QueueKey, workers: tuple[WorkerId, ...] = WORKERS) -> list[WorkerId]:
    return sorted(workers, key=lambda worker: rank(queue, worker, workers))


def test_a_lease_is_free_when_its_beat_stands_still_for_two_seconds() -> None:
    watch = LeaseWatch()
    assert read_every_round(watch, a_lease(1), 10.0, 11.5) < 0
    assert read(watch, a_lease(1), 12.0) == 0
    assert read(watch, a_lease(1), 12.5) == LEASE_INTERVAL_S
    assert read(watch, a_lease(2), 13.0) == -LEASE_FREE_AFTER_S


def test_a_lease_with_a_new_term_is_not_free_though_its_beat_is_the_same() -> None:
    watch = LeaseWatch()
    assert read_every_round(watch, a_lease(1), 10.0, 12.0) == 0
    assert read(watch, a_lease(1, term=2), 12.5) < 0


def test_a_lease_without_holder_is_free_since_the_read_that_first_found_it_so() -> None:
    watch = LeaseWatch()
    read(watch, a_lease(1), 10.0)
    assert read(watch, a_lease(1, holder=None), 10.5) == 0
    assert read(watch, a_lease(1, holder=None), 11.0) == 0.5
    assert read(watch, a_lease(2, term=2, holder=None), 11.5) == 0


def test_a_failed_read_restarts_the_span_of_an_unmoved_lease() -> None:
    watch = LeaseWatch()
    assert read_every_round(watch, a_lease(1), 10.0, 11.5) < 0
    watch.read_failed()
    assert read_every_round(watch, a_lease(1), 12.5, 14.0) < 0
    assert read(watch, a_lease(1), 14.5) == 0


def test_a_pause_between_two_reads_restarts_the_span() -> None:
    watch = LeaseWatch()
    read(watch, a_lease(1), 10.0)
    assert read(watch, a_lease(1), 30.0) == -LEASE_FREE_AFTER_S
    assert read(watch, a_lease(1), 30.0 + MAX_LEASE_READ_GAP_S) < 0
    assert read(watch, a_lease(1), 30.0 + LEASE_FREE_AFTER_S) == 0


@pytest.mark.parametrize("first", [1, 2], ids=["moved", "read first"])
def test_the_span_begins_when_a_slow_read_is_answered_and_ends_when_one_is_requested(
    first: int,
) -> None:
    watch = LeaseWatch()
    if first == 1:
        read(watch, a_lease(1), 9.5)
    read(watch, a_lease(2), 10.0, answered_at=10.75)
    assert read_every_round(watch, a_lease(2), 10.75, 12.25) < 0
    assert read(watch, a_lease(2), 12.5, answered_at=13.25) == -0.25


def test_each_worker_is_the_first_in_rank_for_its_share_of_the_queues() -> None:
    firsts = Counter(in_rank_order(queue)[0] for queue in MANY_QUEUES)
    assert all(70 < firsts[worker] < 130 for worker in WORKERS)


def test_a_worker_that_leaves_changes_the_order_of_no_others() -> None:
    for queue in MANY_QUEUES:
        left = [worker for worker in in_rank_order(queue) if worker != COY]
        assert in_rank_order(queue, (ANN, BEN)) == left


def a_policy(worker: WorkerId = ANN, now: float = 100.0, *, is_able: bool = True) -> LeasePolicy:
    policy = LeasePolicy(worker)
    policy.observe(WORKERS, now, is_able=is_able)
    return policy


def test_a_free_lease_is_acquired_later_with_each_rank() -> None:
    for expected, worker in enumerate(in_rank_order(EMAIL_HIGH)):
        policy = a_policy(worker)
        policy.observe(WORKERS, 200.0, is_able=True)
        assert policy.may_acquire(RELEASED, expected * RANK_DELAY_S)
        assert not policy.may_acquire(RELEASED, expected * RANK_DELAY_S - 0.01)


def test_a_worker_without_a_heartbeat_row_acquires_nothing() -> None:
    policy = LeasePolicy(ANN)
    policy.observe((BEN, COY), 100.0, is_able=True)
    assert not policy.may_acquire(RELEASED, 100.0)
    policy.observe(WORKERS, 101.0, is_able=True)
    policy.observe(WORKERS, 102.0, is_able=True)
    assert policy.may_acquire(RELEASED, 100.0)


def test_a_process_without_broker_acquires_nothing() -> None:
    policy = a_policy(in_rank_order(EMAIL_HIGH)[0], is_able=False)
    assert not policy.may_acquire(RELEASED, 100.0)
    policy.observe(WORKERS, 101.0, is_able=True)
    assert policy.may_acquire(RELEASED, 100.0)


def test_the_delay_begins_again_when_the_broker_answers_again() -> None:
    policy = a_policy(in_rank_order(EMAIL_HIGH)[1])
    policy.observe(WORKERS, 101.0, is_able=False)
    policy.observe(WORKERS, 102.0, is_able=True)
    assert not policy.may_acquire(RELEASED, 100.0)
    policy.observe(WORKERS, 102.01 + RANK_DELAY_S, is_able=True)
    assert policy.may_acquire(RELEASED, 100.0)


def test_who_gave_a_lease_up_is_the_last_in_rank_for_a_while() -> None:
    policy = a_policy(in_rank_order(EMAIL_HIGH)[0])
    policy.note_given_up(EMAIL_HIGH)
    policy.observe(WORKERS, 100.0 + GIVEN_UP_S - 1, is_able=True)
    assert not policy.may_acquire(RELEASED, 2 * RANK_DELAY_S)
    assert policy.may_acquire(RELEASED, 3 * RANK_DELAY_S)
    policy.observe(WORKERS, 100.0 + GIVEN_UP_S, is_able=True)
    assert policy.may_acquire(RELEASED, 0.0)


def test_a_worker_that_has_just_started_comes_later_for_the_lease_of_a_silent_holder() -> None:
    first = in_rank_order(EMAIL_HIGH)[0]
    policy = LeasePolicy(first)
    policy.observe(WORKERS, 100.0, is_able=True)
    policy.observe(WORKERS, 100.0 + DEAD_AFTER_S - 0.5, is_able=True)
    assert policy.may_acquire(RELEASED, 0.0)
    assert not policy.may_acquire(a_lease(1), NEW_DELAY_S - 0.01)
    assert policy.may_acquire(a_lease(1), NEW_DELAY_S)
    policy.observe(WORKERS, 100.0 + DEAD_AFTER_S, is_able=True)
    assert policy.may_acquire(a_lease(1), 0.0)


def a_held(*, passed_at: float = 100.0, unpublishable_since: float | None = None) -> HeldLease:
    return HeldLease(
        queue=EMAIL_HIGH,
        term=1,
        progress=Progress(),
        renewed_at=100.0,
        passed_at=passed_at,
        unpublishable_since=unpublishable_since,
    )


@pytest.mark.parametrize(
    ("lease", "usable_since", "reason"),
    [
        (a_held(), 0.0, ""),
        (a_held(passed_at=99.9 - STALLED_AFTER_S), 0.0, "relay"),
        (a_held(passed_at=50.0), 95.0, ""),
        (a_held(unpublishable_since=100.1 - UNPUBLISHABLE_AFTER_S), 0.0, ""),
        (a_held(unpublishable_since=99.9 - UNPUBLISHABLE_AFTER_S), 0.0, "broker"),
        (a_held(unpublishable_since=50.0), 99.0, ""),
    ],
    ids=["fine", "stalled", "usable again", "failing shortly", "failing", "failing again"],
)
def test_a_lease_is_given_up_where_another_worker_may_do_better(
    lease: HeldLease, usable_since: float, reason: str
) -> None:
    policy = a_policy()
    assert policy.why_to_give_up(lease, usable_since) == reason
    policy.observe([ANN], 100.0, is_able=True)
    assert policy.why_to_give_up(lease, usable_since) == ""


def test_one_lease_at_a_time_is_handed_over_to_the_first_in_rank() -> None:
    policy = a_policy(ANN)
    not_ann = [queue for queue in QUEUES if in_rank_order(queue)[0] != ANN]
    ann = [queue for queue in QUEUES if queue not in not_ann]
    policy.observe(WORKERS, 100.0 + HAND_OVER_INTERVAL_S - 0.5, is_able=True)
    assert policy.choose_to_hand_over(QUEUES, WORKERS) is None
    policy.observe(WORKERS, 100.0 + HAND_OVER_INTERVAL_S, is_able=True)
    assert policy.choose_to_hand_over([*ann, *not_ann], WORKERS) == not_ann[0]
    assert policy.choose_to_hand_over(not_ann, WORKERS) is None
    policy.observe(WORKERS, 100.0 + 2 * HAND_OVER_INTERVAL_S, is_able=True)
    assert policy.choose_to_hand_over(ann, WORKERS) is None
    assert policy.choose_to_hand_over(not_ann[1:], WORKERS) == not_ann[1]


def test_nothing_is_handed_over_to_a_worker_that_has_just_appeared() -> None:
    first, second, _ = in_rank_order(EMAIL_HIGH)
    policy = LeasePolicy(second)
    policy.observe([second], 100.0, is_able=True)
    policy.observe(WORKERS, 150.0, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], WORKERS) is None
    policy.observe([second], 155.0, is_able=True)
    policy.observe([first, second], 156.0, is_able=True)
    policy.observe([first, second], 156.0 + HAND_OVER_INTERVAL_S - 0.5, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], WORKERS) is None
    policy.observe([first, second], 156.0 + HAND_OVER_INTERVAL_S, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], WORKERS) == EMAIL_HIGH


def test_a_lease_that_came_back_is_not_offered_to_the_same_worker_soon() -> None:
    policy = a_policy(in_rank_order(EMAIL_HIGH)[1])
    policy.observe(WORKERS, 110.0, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], WORKERS) == EMAIL_HIGH
    policy.observe(WORKERS, 109.0 + HAND_OVER_RETRY_S, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], WORKERS) is None
    policy.observe(WORKERS, 110.0 + HAND_OVER_RETRY_S, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], WORKERS) == EMAIL_HIGH


def test_nothing_is_handed_over_to_a_worker_that_has_stopped_to_beat() -> None:
    first, second, third = in_rank_order(EMAIL_HIGH)
    policy = a_policy(second)
    policy.observe(WORKERS, 110.0, is_able=True)
    assert policy.choose_to_hand_over([EMAIL_HIGH], [second, third]) is None
    assert policy.choose_to_hand_over([EMAIL_HIGH], [first]) == EMAIL_HIGH


def test_a_worker_that_is_alone_hands_nothing_over() -> None:
    policy = LeasePolicy(ANN)
    policy.observe([ANN], 100.0, is_able=True)
    policy.observe([ANN], 200.0, is_able=True)
    assert policy.choose_to_hand_over(QUEUES, WORKERS) is None
