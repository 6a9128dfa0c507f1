"""Properties that the allocator keeps for any measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.allocation.caps import floating_caps
from notifier.domain.allocation.demand import QueueDemand
from notifier.domain.allocation.entitlement import Limit, allocate
from notifier.domain.allocation.moves import UNASSIGNED, Assignment, Move, Place, plan_moves
from notifier.domain.controls import SendPermission
from notifier.domain.notification import Channel, Priority, QueueKey

WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}
QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel in ("email", "push", "sms")
    for priority in Priority
)
TICK_S = 0.25

CONSUMERS = st.integers(0, 100)
PERMISSIONS = st.sampled_from(
    [SendPermission.ALLOWED] * 3
    + [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)


@st.composite
def demands_of(draw: st.DrawFn, queue: QueueKey) -> QueueDemand:
    return QueueDemand(
        queue=queue,
        depth=draw(st.integers(0, 50) | st.integers(0, 100_000)),
        arrivals_per_s=draw(st.just(0.0) | st.floats(0, 5_000)),
        service_s=draw(st.floats(0.001, 30)),
        target_wait_s=TARGETS[queue.priority],
        weight=WEIGHTS[queue.priority],
        oldest_wait_s=draw(st.floats(0, 300)),
        rate_per_s=draw(st.none() | st.floats(0.01, 1_000)),
        max_consumers=draw(st.none() | st.integers(1, 100)),
        permission=draw(PERMISSIONS),
        hang_limit=draw(st.none() | st.integers(1, 100)),
        reserved=draw(st.sampled_from([1, 1, 0])),
        stuck=draw(st.just(0) | st.integers(0, 30)),
        stuck_before_recovery=draw(st.just(0) | st.integers(0, 30)),
        has_slow_consumer_rate=draw(st.booleans()),
    )


@st.composite
def demand_lists(draw: st.DrawFn) -> list[QueueDemand]:
    queues = draw(st.lists(st.sampled_from(QUEUES), min_size=1, max_size=9, unique=True))
    channels = sorted({queue.channel for queue in queues})
    hangs = {channel: draw(st.none() | st.integers(0, 32)) for channel in channels}
    bulkheads = {channel: draw(st.none() | st.integers(0, 64)) for channel in channels}
    return [
        replace(
            draw(demands_of(queue)),
            channel_hang_limit=hangs[queue.channel],
            bulkhead=bulkheads[queue.channel],
        )
        for queue in queues
    ]


@st.composite
def states(draw: st.DrawFn) -> tuple[list[QueueDemand], dict[QueueKey, Assignment], int]:
    demands = draw(demand_lists())
    assignments = {
        demand.queue: Assignment(
            consumers=draw(st.integers(0, 30)),
            peak_use=draw(st.integers(0, 30)),
            short_ticks=draw(st.integers(0, 8)),
        )
        for demand in demands
    }
    return demands, assignments, draw(st.integers(0, 10))


def consumers_of(assignments: dict[QueueKey, Assignment], unassigned: int) -> int:
    return unassigned + sum(assignment.consumers for assignment in assignments.values())


@given(demand_lists(), CONSUMERS)
def test_all_consumers_are_assigned_as_far_as_the_caps_allow(
    demands: list[QueueDemand], consumers: int
) -> None:
    allocation = allocate(demands, consumers)
    assert sum(entitlement.consumers for entitlement in allocation.values()) == min(
        consumers, sum(floating_caps(demands).values())
    )


@given(demand_lists(), CONSUMERS)
def test_no_queue_is_above_its_cap(demands: list[QueueDemand], consumers: int) -> None:
    allocation = allocate(demands, consumers)
    for demand in demands:
        floating = allocation[demand.queue].consumers
        total = floating + demand.reserved if floating else 0
        assert floating == 0 or not demand.is_stopped
        assert total <= max(1, demand.max_consumers or total)
        assert total <= max(1, demand.hang_limit or total)


@given(demand_lists(), CONSUMERS)
def test_no_channel_is_above_its_hang_limit_or_bulkhead(
    demands: list[QueueDemand], consumers: int
) -> None:
    allocation = allocate(demands, consumers)
    for members in channels_of(demands):
        held = sum(allocation[demand.queue].consumers for demand in members)
        assert held <= channel_cap_of(members)


@given(demand_lists(), CONSUMERS)
def test_a_stopped_or_probed_queue_reports_it_whatever_else_limits_it(
    demands: list[QueueDemand], consumers: int
) -> None:
    allocation = allocate(demands, consumers)
    for demand in demands:
        limit = allocation[demand.queue].limited_by
        assert (limit is Limit.PAUSE) == (demand.permission is SendPermission.PAUSED)
        assert (limit is Limit.BREAKER) == (
            demand.permission in {SendPermission.BREAKER_OPEN, SendPermission.PROBE}
        )
        assert limit is not Limit.HANG or not demand.channel_hang_limit is demand.hang_limit is None
        assert (
            limit is not Limit.RATE
            or demand.has_slow_consumer_rate
            or demand.rate_per_s is not None
        )


@given(demand_lists(), CONSUMERS)
def test_a_probed_queue_has_only_its_reserved_consumer(
    demands: list[QueueDemand], consumers: int
) -> None:
    allocation = allocate(demands, consumers)
    assert all(
        allocation[demand.queue].consumers == 0
        for demand in demands
        if demand.permission is SendPermission.PROBE
    )


@given(st.floats(0.1, 1_000), st.floats(0.001, 10))
def test_the_cap_of_a_rate_leaves_one_consumer_to_wait_for_the_next_slot(
    rate_per_s: float, service_s: float
) -> None:
    queue = QUEUES[0]
    demand = QueueDemand(
        queue=queue,
        depth=100_000,
        arrivals_per_s=0.0,
        service_s=service_s,
        target_wait_s=1.0,
        weight=1.0,
        rate_per_s=rate_per_s,
    )
    cap = floating_caps([demand])[queue] + demand.reserved
    assert rate_per_s * service_s + 1 <= cap <= rate_per_s * (1.25 * service_s + 0.04) + 2


@given(demand_lists(), CONSUMERS)
def test_no_consumer_is_surplus_while_a_queue_could_use_one(
    demands: list[QueueDemand], consumers: int
) -> None:
    allocation, limits = allocate(demands, consumers), floating_caps(demands)
    surplus = [
        demand
        for demand in demands
        if allocation[demand.queue].consumers > demand.floating_of(demand.useful)
    ]
    lacking = [
        demand
        for demand in demands
        if allocation[demand.queue].consumers
        < min(limits[demand.queue], demand.floating_of(demand.useful))
    ]
    assert not (surplus and lacking)


@given(demand_lists(), CONSUMERS, st.integers(0, 8), st.integers(1, 10_000))
def test_more_depth_never_means_a_smaller_entitlement(
    demands: list[QueueDemand], consumers: int, index: int, growth: int
) -> None:
    index %= len(demands)
    deeper = [*demands]
    deeper[index] = replace(demands[index], depth=demands[index].depth + growth)
    queue = demands[index].queue
    before, after = allocate(demands, consumers)[queue], allocate(deeper, consumers)[queue]
    assert after.consumers >= before.consumers


@given(demand_lists(), CONSUMERS, demands_of(QUEUES[0]), st.sampled_from(QUEUES))
def test_of_two_queues_with_equal_measures_the_higher_priority_never_gets_less(
    demands: list[QueueDemand], consumers: int, measured: QueueDemand, queue: QueueKey
) -> None:
    pair = [
        replace(
            measured,
            queue=QueueKey(queue.channel, priority),
            weight=WEIGHTS[priority],
            target_wait_s=TARGETS[priority],
        )
        for priority in (Priority.HIGH, Priority.LOW)
    ]
    others = [demand for demand in demands if demand.queue.channel != queue.channel]
    allocation = allocate([*others, *pair], consumers)
    assert allocation[pair[0].queue].consumers >= allocation[pair[1].queue].consumers


@given(demand_lists(), CONSUMERS, st.randoms(use_true_random=False))
def test_the_order_of_the_queues_does_not_matter(
    demands: list[QueueDemand], consumers: int, random: Random
) -> None:
    shuffled = random.sample(demands, len(demands))
    assert allocate(demands, consumers) == allocate(shuffled, consumers)


@given(states())
def test_moves_take_only_existing_consumers_and_lose_none(
    state: tuple[list[QueueDemand], dict[QueueKey, Assignment], int],
) -> None:
    demands, assignments, unassigned = state
    consumers = consumers_of(assignments, unassigned)
    places: dict[Place, int] = {q: held.consumers for q, held in assignments.items()}
    places[UNASSIGNED] = unassigned
    for move in plan_moves(
        demands, allocate(demands, consumers), assignments, unassigned=unassigned
    ):
        assert move.count > 0
        assert move.source != move.target
        places[move.source] -= move.count
        places[move.target] += move.count
        assert places[move.source] >= 0
    assert sum(places.values()) == consumers


@given(states())
def test_after_the_moves_no_queue_that_may_work_is_above_its_cap(
    state: tuple[list[QueueDemand], dict[QueueKey, Assignment], int],
) -> None:
    demands, assignments, unassigned = state
    places, limits = after_moves(demands, assignments, unassigned), floating_caps(demands)
    for demand in demands:
        if not demand.is_stopped:
            assert places[demand.queue] <= limits[demand.queue] + rate_slack(demand)


@given(states())
def test_when_moves_stop_no_channel_is_above_its_bound(
    state: tuple[list[QueueDemand], dict[QueueKey, Assignment], int],
) -> None:
    demands, assignments, unassigned = state
    allocation = allocate(demands, consumers_of(assignments, unassigned))
    places: dict[Place, int] = {}
    for _ in range(50):
        moves = plan_moves(demands, allocation, assignments, unassigned=unassigned)
        places = apply_moves(moves, assignments, unassigned)
        unassigned = places.pop(UNASSIGNED)
        assignments = {
            queue: replace(held, consumers=places[queue]) for queue, held in assignments.items()
        }
        if not moves:
            break
    for members in channels_of(demands):
        working = [demand for demand in members if not demand.is_stopped]
        assert sum(places[demand.queue] for demand in working) <= channel_cap_of(members)


@given(states())
def test_after_the_moves_no_consumer_is_surplus_while_a_queue_is_below_its_entitlement(
    state: tuple[list[QueueDemand], dict[QueueKey, Assignment], int],
) -> None:
    """Surplus: more than the peak of use, at a queue that is not short without them.

    Stuck consumers are left out: they are given to no queue, though they may be unassigned.
    """
    demands, assignments, unassigned = state
    demands = [replace(demand, stuck=0, stuck_before_recovery=0) for demand in demands]
    places = after_moves(demands, assignments, unassigned)
    allocation = allocate(demands, consumers_of(assignments, unassigned))
    lacking = [
        demand
        for demand in demands
        if places[demand.queue] < allocation[demand.queue].consumers
        and demand.is_short(places[demand.queue] + demand.reserved, TICK_S)
        and places[demand.queue] < demand.floating_of(demand.needed_to_drain(2 * TICK_S))
    ]
    surplus = [
        demand
        for demand in demands
        if places[demand.queue] > 0
        and places[demand.queue] + demand.reserved > assignments[demand.queue].peak_use
        and not demand.is_short(places[demand.queue] + demand.reserved - 1, TICK_S)
    ]
    assert not lacking or (
        places[UNASSIGNED] == 0 and not [demand for demand in surplus if demand not in lacking]
    )


@given(states())
def test_under_constant_load_moves_stop(
    state: tuple[list[QueueDemand], dict[QueueKey, Assignment], int],
) -> None:
    demands, assignments, unassigned = state
    consumers = consumers_of(assignments, unassigned)
    allocation = allocate(demands, consumers)
    for _ in range(2 * consumers + 10):
        moves = plan_moves(demands, allocation, assignments, unassigned=unassigned)
        if not moves:
            return
        places = after_moves(demands, assignments, unassigned)
        unassigned = places.pop(UNASSIGNED)
        assignments = {
            queue: replace(held, consumers=places[queue]) for queue, held in assignments.items()
        }
    raise AssertionError("still moving")


def after_moves(
    demands: list[QueueDemand], assignments: dict[QueueKey, Assignment], unassigned: int
) -> dict[Place, int]:
    allocation = allocate(demands, consumers_of(assignments, unassigned))
    return apply_moves(
        plan_moves(demands, allocation, assignments, unassigned=unassigned), assignments, unassigned
    )


def apply_moves(
    moves: Sequence[Move], assignments: dict[QueueKey, Assignment], unassigned: int
) -> dict[Place, int]:
    places: dict[Place, int] = {q: held.consumers for q, held in assignments.items()}
    places[UNASSIGNED] = unassigned
    for move in moves:
        places[move.source] -= move.count
        places[move.target] += move.count
    return places


def channels_of(demands: list[QueueDemand]) -> list[list[QueueDemand]]:
    channels = {demand.queue.channel for demand in demands}
    return [
        [demand for demand in demands if demand.queue.channel == channel] for channel in channels
    ]


def channel_cap_of(members: list[QueueDemand]) -> float:
    """How many floating consumers may be on all queues of one channel."""
    first = members[0]
    bounds = [bound for bound in (first.channel_hang_limit, first.bulkhead) if bound is not None]
    return max(0, min(bounds) - sum(demand.reserved for demand in members)) if bounds else inf


def rate_slack(demand: QueueDemand) -> int:
    """How many consumers may stay above the cap of a rate."""
    if demand.rate_per_s is None or demand.permission is SendPermission.PROBE:
        return 0
    cap = demand.rate_per_s * (1.25 * demand.service_s + 0.04) + 2 + demand.unproductive
    return max(1, int(cap) // 4)
