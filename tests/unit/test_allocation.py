"""The allocator by example, with the arithmetic in comments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from notifier.domain.allocation.demand import QueueDemand
from notifier.domain.allocation.entitlement import Entitlement, Limit, allocate
from notifier.domain.allocation.moves import UNASSIGNED, Assignment, Move, plan_moves
from notifier.domain.controls import SendPermission
from notifier.domain.notification import Channel, Priority, QueueKey

WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}
EMAIL_HIGH = QueueKey(Channel("email"), Priority.HIGH)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
SMS_HIGH = QueueKey(Channel("sms"), Priority.HIGH)
SMS_LOW = QueueKey(Channel("sms"), Priority.LOW)
Measured = float | SendPermission | None


def demand(queue: QueueKey, depth: int = 0, **measured: Measured) -> QueueDemand:
    facts: dict[str, Measured] = {"arrivals_per_s": 0.0, "service_s": 0.02}
    return QueueDemand(
        queue=queue,
        depth=depth,
        target_wait_s=TARGETS[queue.priority],
        weight=WEIGHTS[queue.priority],
        **{**facts, **measured},  # type: ignore[arg-type]
    )


def test_all_consumers_go_to_the_only_queue_with_a_backlog() -> None:
    idle = [demand(EMAIL_HIGH), demand(SMS_HIGH), demand(SMS_LOW)]
    allocation = allocate([*idle, demand(EMAIL_LOW, 5_000)], 64)
    assert allocation[EMAIL_LOW] == Entitlement(64, Limit.CONSUMERS)
    assert allocation[SMS_HIGH] == Entitlement(0, Limit.NEED)


def test_need_is_the_load_plus_draining_the_backlog_within_the_target_wait() -> None:
    # 500/s * 0.02 s = 10 busy, and 200 * 0.02 s / 1 s = 4 to drain: 14.
    assert demand(EMAIL_HIGH, 200, arrivals_per_s=500).need == 14
    # The same backlog of low may take a minute: 200 * 0.02 / 60 = 0.07.
    assert demand(EMAIL_LOW, 200, arrivals_per_s=500).need == 11


def test_need_is_never_above_the_number_of_messages() -> None:
    # 3 messages of 30 s each would need 90 consumers to finish within a second.
    assert demand(EMAIL_HIGH, 3, service_s=30).need == 3


def test_a_probed_queue_keeps_only_its_reserved_consumer() -> None:
    demands = [demand(EMAIL_LOW), demand(SMS_HIGH, 100, permission=SendPermission.PROBE)]
    allocation = allocate(demands, 8)
    assert allocation[SMS_HIGH] == Entitlement(0, Limit.BREAKER)
    held = {EMAIL_LOW: Assignment(consumers=3), SMS_HIGH: Assignment(consumers=5)}
    assert plan_moves(demands, allocation, held) == (Move(SMS_HIGH, UNASSIGNED, 5),)


def test_a_queue_that_the_broker_refuses_gets_no_consumers_and_keeps_none() -> None:
    refused = replace(demand(SMS_HIGH, 1_000), is_refused=True)
    demands = [demand(EMAIL_LOW, 5_000), refused]
    allocation = allocate(demands, 8)
    assert allocation[SMS_HIGH] == Entitlement(0, Limit.BROKER)
    assert allocation[EMAIL_LOW].consumers == 8
    held = {EMAIL_LOW: Assignment(consumers=3), SMS_HIGH: Assignment(consumers=5)}
    assert Move(SMS_HIGH, EMAIL_LOW, 5) in plan_moves(demands, allocation, held)


@pytest.mark.parametrize("bound", ["hang_limit", "channel_hang_limit"])
def test_a_hang_is_named_even_if_another_limit_is_reached_first(bound: str) -> None:
    allocation = allocate([demand(EMAIL_HIGH, 5_000), demand(SMS_LOW, 100, **{bound: 60})], 8)
    assert allocation[SMS_LOW].consumers < 60
    assert allocation[SMS_LOW].limited_by is Limit.HANG
    idle = allocate([demand(SMS_LOW, 0, **{bound: 60})], 8)
    assert idle[SMS_LOW].limited_by is Limit.NEED


def test_a_hanging_channel_is_limited_as_a_whole_and_reports_hang() -> None:
    hung = {"channel_hang_limit": 4, "service_s": 1.0}
    demands = [demand(EMAIL_LOW), demand(SMS_HIGH, 100, **hung), demand(SMS_LOW, 100, **hung)]
    allocation = allocate(demands, 16)
    assert allocation[SMS_HIGH].consumers + allocation[SMS_LOW].consumers == 2  # and two reserved
    assert allocation[SMS_HIGH].limited_by is Limit.HANG


def test_a_stuck_consumer_is_replaced_while_messages_wait() -> None:
    idle = demand(EMAIL_LOW)
    hung = demand(SMS_HIGH, 1, service_s=0.005, stuck=1)
    assert demand(SMS_HIGH, 1, service_s=0.005).is_short(1, 0.25) is False
    assert hung.is_short(1, 0.25) is True
    allocation = allocate([idle, hung], 64)
    assert allocation[SMS_HIGH].consumers >= 1
    assignments = {
        EMAIL_LOW: Assignment(consumers=64, peak_use=0, short_ticks=0),
        SMS_HIGH: Assignment(consumers=0, peak_use=1, short_ticks=1),
    }
    assert plan_moves([idle, hung], allocation, assignments) == (Move(EMAIL_LOW, SMS_HIGH, 1),)
    assert demand(SMS_HIGH, 0, stuck=1).is_short(1, 0.25) is False


def test_at_most_four_stuck_consumers_are_replaced() -> None:
    assert demand(SMS_HIGH, 1_000, stuck=30).replacements == 4


def test_a_low_queue_keeps_its_floor_under_a_flood_of_high() -> None:
    flood = [demand(EMAIL_HIGH, 50_000, oldest_wait_s=30), demand(SMS_HIGH, 50_000)]
    allocation = allocate([*flood, demand(SMS_LOW, 1_000)], 64)
    assert allocation[SMS_LOW] == Entitlement(2, Limit.CONSUMERS)
    # The late queue has an urgency of 32, the other of 8: 62 are divided four to one.
    assert allocation[EMAIL_HIGH].consumers == 49
    assert allocation[SMS_HIGH].consumers == 13


def test_without_work_consumers_are_divided_by_weight() -> None:
    allocation = allocate([demand(EMAIL_HIGH), demand(SMS_HIGH), demand(SMS_LOW)], 17)
    assert [entitlement.consumers for entitlement in allocation.values()] == [8, 8, 1]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"permission": SendPermission.PAUSED}, Entitlement(0, Limit.PAUSE)),
        ({"permission": SendPermission.BREAKER_OPEN}, Entitlement(0, Limit.BREAKER)),
        # 1.25 * 100/s * 0.02 s = 2.5 in calls, 100/s * 0.04 s = 4 slots ahead: 7, and one more.
        ({"rate_per_s": 100.0}, Entitlement(7, Limit.RATE)),
        ({"rate_per_s": 0.1}, Entitlement(1, Limit.RATE)),
        ({"max_consumers": 5, "has_slow_consumer_rate": True}, Entitlement(4, Limit.RATE)),
        ({"has_slow_consumer_rate": True}, Entitlement(64, Limit.RATE)),
        ({"hang_limit": 7, "has_slow_consumer_rate": True}, Entitlement(6, Limit.HANG)),
        ({"rate_per_s": 100.0, "hang_limit": 6}, Entitlement(5, Limit.HANG)),
        ({"bulkhead": 16}, Entitlement(15, Limit.CONNECTIONS)),
        ({"bulkhead": 0}, Entitlement(0, Limit.CONNECTIONS)),
        ({"bulkhead": 16, "channel_hang_limit": 4}, Entitlement(3, Limit.HANG)),
        ({"bulkhead": 4, "channel_hang_limit": 16}, Entitlement(3, Limit.HANG)),
        ({"max_consumers": 5}, Entitlement(4, Limit.CONSUMERS)),
        ({"hang_limit": 7}, Entitlement(6, Limit.HANG)),
        ({"channel_hang_limit": 16}, Entitlement(15, Limit.HANG)),
        ({"reserved": 0, "max_consumers": 5}, Entitlement(5, Limit.CONSUMERS)),
    ],
)
def test_a_cap_is_kept_and_reported_as_the_limit(
    measured: dict[str, Measured], expected: Entitlement
) -> None:
    allocation = allocate([demand(EMAIL_LOW, 5_000, **measured), demand(SMS_LOW)], 64)
    assert allocation[EMAIL_LOW] == expected


def test_queues_of_a_hanging_channel_share_its_hang_limit() -> None:
    hung = [
        demand(SMS_HIGH, 5_000, channel_hang_limit=16),
        demand(SMS_LOW, 5_000, channel_hang_limit=16),
    ]
    allocation = allocate([*hung, demand(EMAIL_LOW, 5_000)], 64)
    # 16 less two reserved ones: 13 and 1 by weight; the other channel gets the rest.
    assert [entitlement.consumers for entitlement in allocation.values()] == [13, 1, 50]


def test_zero_consumers_are_divided_too() -> None:
    assert allocate([demand(EMAIL_HIGH, 10)], 0)[EMAIL_HIGH] == Entitlement(0, Limit.CONSUMERS)


def settle(
    demands: list[QueueDemand], assignments: dict[QueueKey, Assignment], unassigned: int = 0
) -> tuple[Move, ...]:
    consumers = unassigned + sum(assignment.consumers for assignment in assignments.values())
    return plan_moves(demands, allocate(demands, consumers), assignments, unassigned=unassigned)


def test_consumers_of_idle_queues_go_to_the_short_queue_in_one_tick() -> None:
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 5_000)]
    assignments = {
        EMAIL_HIGH: Assignment(consumers=60),
        EMAIL_LOW: Assignment(consumers=4, short_ticks=1),
    }
    assert settle(demands, assignments) == (Move(EMAIL_HIGH, EMAIL_LOW, 60),)


def test_surplus_stays_while_no_queue_is_short() -> None:
    # One consumer clears 12 messages of 20 ms in a tick: a depth of 12 is not short.
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 12)]
    assignments = {EMAIL_HIGH: Assignment(consumers=64), EMAIL_LOW: Assignment(consumers=0)}
    assert settle(demands, assignments) == ()


def test_a_short_queue_receives_only_what_drains_it_in_two_ticks() -> None:
    # 200 * 0.02 s / 0.5 s = 8, of which one is reserved and three are already assigned.
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 200)]
    assignments = {EMAIL_HIGH: Assignment(consumers=61), EMAIL_LOW: Assignment(consumers=3)}
    assert settle(demands, assignments) == (Move(EMAIL_HIGH, EMAIL_LOW, 4),)


def test_a_queue_keeps_its_recent_peak_of_use() -> None:
    demands = [demand(EMAIL_HIGH, arrivals_per_s=1_000), demand(EMAIL_LOW, 5_000)]
    assignments = {
        EMAIL_HIGH: Assignment(consumers=30, peak_use=21),
        EMAIL_LOW: Assignment(consumers=34, peak_use=35, short_ticks=9),
    }
    assert settle(demands, assignments) == (Move(EMAIL_HIGH, EMAIL_LOW, 10),)


@pytest.mark.parametrize(("short_ticks", "moved"), [(3, 0), (4, 31)])
def test_busy_consumers_are_preempted_only_above_entitlement_and_after_four_ticks(
    short_ticks: int, moved: int
) -> None:
    demands = [demand(EMAIL_HIGH, 5_000), demand(SMS_HIGH, 5_000)]
    assignments = {
        EMAIL_HIGH: Assignment(consumers=63, peak_use=64, short_ticks=99),
        SMS_HIGH: Assignment(consumers=1, peak_use=2, short_ticks=short_ticks),
    }
    moves = settle(demands, assignments)
    assert sum(move.count for move in moves) <= moved
    assert bool(moves) == bool(moved)


def test_small_differences_move_no_consumer() -> None:
    demands = [demand(EMAIL_HIGH, 5_000), demand(SMS_HIGH, 5_000)]
    assignments = {
        EMAIL_HIGH: Assignment(consumers=35, peak_use=36, short_ticks=99),
        SMS_HIGH: Assignment(consumers=29, peak_use=30, short_ticks=99),
    }
    assert settle(demands, assignments) == ()


def test_unassigned_consumers_move_first() -> None:
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 5_000)]
    assignments = {EMAIL_HIGH: Assignment(consumers=10), EMAIL_LOW: Assignment(consumers=0)}
    moves = settle(demands, assignments, unassigned=5)
    assert moves == (Move(UNASSIGNED, EMAIL_LOW, 5), Move(EMAIL_HIGH, EMAIL_LOW, 10))


def test_consumers_above_a_cap_leave_though_no_queue_is_short() -> None:
    demands = [demand(EMAIL_HIGH, max_consumers=4), demand(EMAIL_LOW)]
    assignments = {
        EMAIL_HIGH: Assignment(consumers=10, peak_use=11),
        EMAIL_LOW: Assignment(consumers=0),
    }
    assert settle(demands, assignments) == (Move(EMAIL_HIGH, UNASSIGNED, 7),)


def test_a_paused_queue_receives_no_consumer_and_keeps_those_not_needed_elsewhere() -> None:
    demands = [demand(EMAIL_HIGH, 900, permission=SendPermission.PAUSED), demand(EMAIL_LOW)]
    assignments = {
        EMAIL_HIGH: Assignment(consumers=10, short_ticks=9),
        EMAIL_LOW: Assignment(consumers=5),
    }
    assert settle(demands, assignments) == ()


def test_a_stuck_consumer_uses_none_of_the_rate() -> None:
    slow = demand(EMAIL_LOW, 5_000, rate_per_s=1.0, stuck=3)
    assert allocate([slow, demand(SMS_LOW)], 64)[EMAIL_LOW] == Entitlement(4, Limit.RATE)


def test_all_consumers_stuck_since_before_a_recovery_are_replaced() -> None:
    assert demand(SMS_HIGH, 1_000, stuck=30, stuck_before_recovery=13).replacements == 17
    assert demand(SMS_HIGH, 0, stuck_before_recovery=13).replacements == 0


def test_consumers_slightly_above_the_cap_of_a_rate_stay_until_another_queue_is_short() -> None:
    # The cap is 8 with the reserved one; 10 may stay, 11 may not.
    limited = demand(EMAIL_LOW, 5_000, rate_per_s=100.0)
    waiting = Assignment(consumers=9, peak_use=10, short_ticks=9)
    assert (
        settle([limited, demand(SMS_LOW)], {EMAIL_LOW: waiting, SMS_LOW: Assignment(consumers=0)})
        == ()
    )
    too_many = Assignment(consumers=10, peak_use=11, short_ticks=9)
    assignments = {EMAIL_LOW: too_many, SMS_LOW: Assignment(consumers=0)}
    assert settle([limited, demand(SMS_LOW)], assignments) == (Move(EMAIL_LOW, UNASSIGNED, 3),)
    busy = {EMAIL_LOW: waiting, SMS_HIGH: Assignment(consumers=0, peak_use=1, short_ticks=1)}
    assert settle([limited, demand(SMS_HIGH, 500)], busy) == (Move(EMAIL_LOW, SMS_HIGH, 2),)


def test_a_consumer_unassigned_during_a_hanging_call_is_given_to_no_queue() -> None:
    hung = demand(SMS_LOW, 5_000, channel_hang_limit=5, stuck=9)
    assignments = {
        SMS_LOW: Assignment(consumers=10, peak_use=11, short_ticks=9),
        EMAIL_HIGH: Assignment(consumers=0, peak_use=1, short_ticks=9),
    }
    moves = settle([hung, demand(EMAIL_HIGH, 500)], assignments)
    assert moves == (Move(SMS_LOW, UNASSIGNED, 6), Move(UNASSIGNED, EMAIL_HIGH, 1))


def test_after_a_hang_busy_consumers_of_other_queues_move_in_one_tick() -> None:
    demands = [demand(EMAIL_LOW, 5_000), demand(SMS_HIGH, 5_000)]
    assignments = {
        EMAIL_LOW: Assignment(consumers=51, peak_use=52, short_ticks=99),
        SMS_HIGH: Assignment(consumers=13, peak_use=14, short_ticks=99),
    }
    entitled = allocate(demands, 64)[SMS_HIGH].consumers
    moves = settle(demands, assignments)
    assert 13 + sum(move.count for move in moves) >= 0.8 * entitled
