"""What holds of the allocator whatever was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.allocation import Holding, Limit, Move, QueueDemand, caps, entitlement, moves
from notifier.domain.notification import Channel, Priority, QueueKey

WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}
QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel in ("email", "push", "sms")
    for priority in Priority
)
TICK_S = 0.25

crews = st.integers(0, 100)


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
        is_paused=draw(st.sampled_from([False, False, False, True])),
        is_open=draw(st.sampled_from([False, False, False, True])),
        is_probed=draw(st.sampled_from([False, False, False, True])),
        held_at_most=draw(st.none() | st.integers(1, 100)),
        standing=draw(st.sampled_from([1, 1, 0])),
        stuck=draw(st.just(0) | st.integers(0, 30)),
        lost=draw(st.just(0) | st.integers(0, 30)),
        is_paced=draw(st.booleans()),
    )


@st.composite
def worlds(draw: st.DrawFn) -> list[QueueDemand]:
    queues = draw(st.lists(st.sampled_from(QUEUES), min_size=1, max_size=9, unique=True))
    channels = sorted({queue.channel for queue in queues})
    hangs = {channel: draw(st.none() | st.integers(0, 32)) for channel in channels}
    bulkheads = {channel: draw(st.none() | st.integers(0, 64)) for channel in channels}
    return [
        replace(
            draw(demands_of(queue)),
            channel_at_most=hangs[queue.channel],
            bulkhead=bulkheads[queue.channel],
        )
        for queue in queues
    ]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[QueueDemand], dict[QueueKey, Holding], int]:
    world = draw(worlds())
    holdings = {
        demand.queue: Holding(
            consumers=draw(st.integers(0, 30)),
            peak_use=draw(st.integers(0, 30)),
            short_ticks=draw(st.integers(0, 8)),
        )
        for demand in world
    }
    return world, holdings, draw(st.integers(0, 10))


def crew_of(holdings: dict[QueueKey, Holding], bench: int) -> int:
    return bench + sum(holding.consumers for holding in holdings.values())


@given(worlds(), crews)
def test_everybody_has_a_place_as_far_as_the_caps_allow(
    world: list[QueueDemand], pool: int
) -> None:
    shares = entitlement(world, pool)
    assert sum(share.consumers for share in shares.values()) == min(pool, sum(caps(world).values()))


@given(worlds(), crews)
def test_no_queue_is_above_its_cap(world: list[QueueDemand], pool: int) -> None:
    shares = entitlement(world, pool)
    for demand in world:
        share = shares[demand.queue].consumers
        total = share + demand.standing if share else 0
        assert share == 0 or not (demand.is_paused or demand.is_open)
        assert total <= max(1, demand.max_consumers or total)
        assert total <= max(1, demand.held_at_most or total)


@given(worlds(), crews)
def test_no_channel_is_above_its_hang_limit_or_bulkhead(
    world: list[QueueDemand], pool: int
) -> None:
    shares = entitlement(world, pool)
    for members in channels_of(world):
        held = sum(shares[demand.queue].consumers for demand in members)
        assert held <= seats_of(members)


@given(worlds(), crews)
def test_what_is_held_back_says_so_whatever_else_binds(world: list[QueueDemand], pool: int) -> None:
    shares = entitlement(world, pool)
    for demand in world:
        limit = shares[demand.queue].limited_by
        assert (limit is Limit.PAUSE) == demand.is_paused
        assert demand.is_paused or (limit is Limit.BREAKER) == (demand.is_open or demand.is_probed)
        assert limit is not Limit.HANG or not demand.channel_at_most is demand.held_at_most is None
        assert limit is not Limit.RATE or demand.is_paced or demand.rate_per_s is not None


@given(worlds(), crews)
def test_a_queue_that_is_probed_has_its_standing_consumer_alone(
    world: list[QueueDemand], pool: int
) -> None:
    shares = entitlement(world, pool)
    assert all(shares[each.queue].consumers == 0 for each in world if each.is_probed)


@given(st.floats(0.1, 1_000), st.floats(0.001, 10))
def test_the_cap_of_a_rate_leaves_one_to_wait_for_the_next_slot(
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
    most = caps([demand])[queue] + demand.standing
    assert rate_per_s * service_s + 1 <= most <= rate_per_s * (1.25 * service_s + 0.02) + 2


@given(worlds(), crews)
def test_nobody_stands_by_while_a_queue_could_use_one(world: list[QueueDemand], pool: int) -> None:
    shares, limits = entitlement(world, pool), caps(world)
    spare = [each for each in world if shares[each.queue].consumers > each.seats(each.useful)]
    lacking = [
        each
        for each in world
        if shares[each.queue].consumers < min(limits[each.queue], each.seats(each.useful))
    ]
    assert not (spare and lacking)


@given(worlds(), crews, st.integers(0, 8), st.integers(1, 10_000))
def test_more_depth_never_means_a_smaller_entitlement(
    world: list[QueueDemand], pool: int, which: int, more: int
) -> None:
    which %= len(world)
    deeper = [*world]
    deeper[which] = replace(world[which], depth=world[which].depth + more)
    queue = world[which].queue
    before, after = entitlement(world, pool)[queue], entitlement(deeper, pool)[queue]
    assert after.consumers >= before.consumers


@given(worlds(), crews, demands_of(QUEUES[0]), st.sampled_from(QUEUES))
def test_of_two_queues_with_equal_measures_the_higher_priority_never_gets_less(
    world: list[QueueDemand], pool: int, measured: QueueDemand, place: QueueKey
) -> None:
    pair = [
        replace(
            measured,
            queue=QueueKey(place.channel, priority),
            weight=WEIGHTS[priority],
            target_wait_s=TARGETS[priority],
        )
        for priority in (Priority.HIGH, Priority.LOW)
    ]
    others = [demand for demand in world if demand.queue.channel != place.channel]
    shares = entitlement([*others, *pair], pool)
    assert shares[pair[0].queue].consumers >= shares[pair[1].queue].consumers


@given(worlds(), crews, st.randoms(use_true_random=False))
def test_the_order_of_the_queues_does_not_matter(
    world: list[QueueDemand], pool: int, random: Random
) -> None:
    shuffled = random.sample(world, len(world))
    assert entitlement(world, pool) == entitlement(shuffled, pool)


@given(situations())
def test_moves_take_only_what_is_there_and_lose_nobody(
    situation: tuple[list[QueueDemand], dict[QueueKey, Holding], int],
) -> None:
    world, holdings, bench = situation
    pool = crew_of(holdings, bench)
    places: dict[QueueKey | None, int] = {q: held.consumers for q, held in holdings.items()}
    places[None] = bench
    for move in moves(world, entitlement(world, pool), holdings, bench=bench):
        assert move.count > 0
        assert move.source != move.target
        places[move.source] -= move.count
        places[move.target] += move.count
        assert places[move.source] >= 0
    assert sum(places.values()) == pool


@given(situations())
def test_after_the_moves_no_queue_that_may_work_is_above_its_cap(
    situation: tuple[list[QueueDemand], dict[QueueKey, Holding], int],
) -> None:
    world, holdings, bench = situation
    places, limits = after_moves(world, holdings, bench), caps(world)
    for demand in world:
        if not (demand.is_paused or demand.is_open):
            assert places[demand.queue] <= limits[demand.queue] + leeway(demand)


@given(situations())
def test_when_moves_stop_no_channel_is_above_its_bound(
    situation: tuple[list[QueueDemand], dict[QueueKey, Holding], int],
) -> None:
    world, holdings, bench = situation
    shares = entitlement(world, crew_of(holdings, bench))
    places: dict[QueueKey | None, int] = {}
    for _ in range(50):
        made = moves(world, shares, holdings, bench=bench)
        places = moved(made, holdings, bench)
        bench = places.pop(None)
        holdings = {
            queue: replace(held, consumers=places[queue]) for queue, held in holdings.items()
        }
        if not made:
            break
    for members in channels_of(world):
        working = [each for each in members if not (each.is_paused or each.is_open)]
        assert sum(places[each.queue] for each in working) <= seats_of(members)


@given(situations())
def test_after_the_moves_nobody_stands_by_while_a_queue_is_short_of_its_share(
    situation: tuple[list[QueueDemand], dict[QueueKey, Holding], int],
) -> None:
    """Standing by: more than were in use, at a queue that is not short without them.

    Who is stuck is left out here: it is given to none, though it may be on the bench.
    """
    world, holdings, bench = situation
    world = [replace(each, stuck=0, lost=0) for each in world]
    places = after_moves(world, holdings, bench)
    shares = entitlement(world, crew_of(holdings, bench))
    lacking = [
        each
        for each in world
        if places[each.queue] < shares[each.queue].consumers
        and each.is_short(places[each.queue] + each.standing, TICK_S)
        and places[each.queue] < each.seats(each.needed_to_drain_in(2 * TICK_S))
    ]
    idle = [
        each
        for each in world
        if places[each.queue] > 0
        and places[each.queue] + each.standing > holdings[each.queue].peak_use
        and not each.is_short(places[each.queue] + each.standing - 1, TICK_S)
    ]
    assert not lacking or (places[None] == 0 and not [e for e in idle if e not in lacking])


@given(situations())
def test_under_constant_load_moves_stop(
    situation: tuple[list[QueueDemand], dict[QueueKey, Holding], int],
) -> None:
    world, holdings, bench = situation
    pool = crew_of(holdings, bench)
    shares = entitlement(world, pool)
    for _ in range(2 * pool + 10):
        made = moves(world, shares, holdings, bench=bench)
        if not made:
            return
        places = after_moves(world, holdings, bench)
        bench = places.pop(None)
        holdings = {
            queue: replace(held, consumers=places[queue]) for queue, held in holdings.items()
        }
    raise AssertionError("still moving")


def after_moves(
    world: list[QueueDemand], holdings: dict[QueueKey, Holding], bench: int
) -> dict[QueueKey | None, int]:
    shares = entitlement(world, crew_of(holdings, bench))
    return moved(moves(world, shares, holdings, bench=bench), holdings, bench)


def moved(
    made: Sequence[Move], holdings: dict[QueueKey, Holding], bench: int
) -> dict[QueueKey | None, int]:
    places: dict[QueueKey | None, int] = {q: held.consumers for q, held in holdings.items()}
    places[None] = bench
    for move in made:
        places[move.source] -= move.count
        places[move.target] += move.count
    return places


def channels_of(world: list[QueueDemand]) -> list[list[QueueDemand]]:
    channels = {demand.queue.channel for demand in world}
    return [[each for each in world if each.queue.channel == channel] for channel in channels]


def seats_of(members: list[QueueDemand]) -> float:
    """How many that move may be on all queues of one channel."""
    first = members[0]
    bounds = [bound for bound in (first.channel_at_most, first.bulkhead) if bound is not None]
    return max(0, min(bounds) - sum(each.standing for each in members)) if bounds else inf


def leeway(demand: QueueDemand) -> int:
    """Above the cap of a rate a few may stay."""
    if demand.rate_per_s is None or demand.is_probed:
        return 0
    cap = demand.rate_per_s * (1.25 * demand.service_s + 0.02) + 2 + demand.out_of_use
    return max(1, int(cap) // 4)
