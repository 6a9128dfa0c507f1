"""The allocator by example, with the numbers worked out."""

from __future__ import annotations

import pytest

from notifier.domain.allocation import (
    Holding,
    Limit,
    Move,
    QueueDemand,
    Share,
    entitlement,
    moves,
)
from notifier.domain.notification import Channel, Priority, QueueKey

WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}
EMAIL_HIGH = QueueKey(Channel("email"), Priority.HIGH)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
SMS_HIGH = QueueKey(Channel("sms"), Priority.HIGH)
SMS_LOW = QueueKey(Channel("sms"), Priority.LOW)


def demand(queue: QueueKey, depth: int = 0, **measured: float | bool | None) -> QueueDemand:
    facts: dict[str, float | bool | None] = {"arrivals_per_s": 0.0, "service_s": 0.02}
    return QueueDemand(
        queue=queue,
        depth=depth,
        target_wait_s=TARGETS[queue.priority],
        weight=WEIGHTS[queue.priority],
        **{**facts, **measured},  # type: ignore[arg-type]
    )


def test_all_go_to_the_only_queue_with_a_backlog() -> None:
    idle = [demand(EMAIL_HIGH), demand(SMS_HIGH), demand(SMS_LOW)]
    shares = entitlement([*idle, demand(EMAIL_LOW, 5_000)], 64)
    assert shares[EMAIL_LOW] == Share(64, Limit.CONSUMERS)
    assert shares[SMS_HIGH] == Share(0, Limit.NEED)


def test_need_is_load_plus_the_backlog_drained_in_the_promised_wait() -> None:
    # 500/s * 0.02 s = 10 busy, and 200 * 0.02 s / 1 s = 4 to drain: 14.
    assert demand(EMAIL_HIGH, 200, arrivals_per_s=500).need == 14
    # The same backlog of low may take a minute: 200 * 0.02 / 60 = 0.07.
    assert demand(EMAIL_LOW, 200, arrivals_per_s=500).need == 11


def test_more_consumers_than_messages_are_no_use() -> None:
    # 3 messages of 30 s each would "need" 90 to be through in a second.
    assert demand(EMAIL_HIGH, 3, service_s=30).need == 3


def test_a_queue_that_is_probed_keeps_its_standing_consumer_alone() -> None:
    demands = [demand(EMAIL_LOW), demand(SMS_HIGH, 100, is_probed=True)]
    shares = entitlement(demands, 8)
    assert shares[SMS_HIGH] == Share(0, Limit.BREAKER)
    held = {EMAIL_LOW: Holding(consumers=3), SMS_HIGH: Holding(consumers=5)}
    assert moves(demands, shares, held) == (Move(SMS_HIGH, None, 5),)


def test_a_channel_that_hangs_is_bound_as_a_whole_and_says_so() -> None:
    hung = {"channel_at_most": 4, "service_s": 1.0}
    demands = [demand(EMAIL_LOW), demand(SMS_HIGH, 100, **hung), demand(SMS_LOW, 100, **hung)]
    shares = entitlement(demands, 16)
    assert shares[SMS_HIGH].consumers + shares[SMS_LOW].consumers == 2  # and two standing
    assert shares[SMS_HIGH].limited_by is Limit.HANG


def test_a_consumer_that_is_stuck_is_made_good_while_something_waits() -> None:
    idle = demand(EMAIL_LOW)
    hung = demand(SMS_HIGH, 1, service_s=0.005, stuck=1)
    assert demand(SMS_HIGH, 1, service_s=0.005).is_short(1, 0.25) is False
    assert hung.is_short(1, 0.25) is True
    shares = entitlement([idle, hung], 64)
    assert shares[SMS_HIGH].consumers >= 1
    holdings = {
        EMAIL_LOW: Holding(consumers=64, peak_use=0, short_ticks=0),
        SMS_HIGH: Holding(consumers=0, peak_use=1, short_ticks=1),
    }
    assert moves([idle, hung], shares, holdings) == (Move(EMAIL_LOW, SMS_HIGH, 1),)
    assert demand(SMS_HIGH, 0, stuck=1).is_short(1, 0.25) is False


def test_a_provider_that_hangs_draws_no_more_than_four_consumers_for_its_stuck_ones() -> None:
    assert demand(SMS_HIGH, 1_000, stuck=30).made_good == 4


def test_low_keeps_its_floor_under_a_flood_of_high() -> None:
    flood = [demand(EMAIL_HIGH, 50_000, oldest_wait_s=30), demand(SMS_HIGH, 50_000)]
    shares = entitlement([*flood, demand(SMS_LOW, 1_000)], 64)
    assert shares[SMS_LOW] == Share(2, Limit.CONSUMERS)
    # A weight of 32 for the one that waits too long, 8 for the other: four to one of 62.
    assert shares[EMAIL_HIGH].consumers == 49
    assert shares[SMS_HIGH].consumers == 13


def test_with_nothing_to_do_they_stand_by_weight() -> None:
    shares = entitlement([demand(EMAIL_HIGH), demand(SMS_HIGH), demand(SMS_LOW)], 17)
    assert [share.consumers for share in shares.values()] == [8, 8, 1]


@pytest.mark.parametrize(
    ("measured", "share"),
    [
        ({"is_paused": True}, Share(0, Limit.PAUSE)),
        ({"is_open": True}, Share(0, Limit.BREAKER)),
        # 1.25 * 100/s * 0.02 s = 2.5 in calls, 100/s * 0.02 s = 2 reserved: 5, and one more.
        ({"rate_per_s": 100.0}, Share(5, Limit.RATE)),
        ({"rate_per_s": 0.1}, Share(1, Limit.RATE)),
        ({"max_consumers": 5, "is_paced": True}, Share(4, Limit.RATE)),
        ({"is_paced": True}, Share(64, Limit.RATE)),
        ({"held_at_most": 7, "is_paced": True}, Share(6, Limit.HANG)),
        ({"rate_per_s": 100.0, "held_at_most": 6}, Share(5, Limit.HANG)),
        ({"bulkhead": 16}, Share(15, Limit.CONNECTIONS)),
        ({"bulkhead": 0}, Share(0, Limit.CONNECTIONS)),
        ({"bulkhead": 16, "channel_at_most": 4}, Share(3, Limit.HANG)),
        ({"bulkhead": 4, "channel_at_most": 16}, Share(3, Limit.CONNECTIONS)),
        ({"max_consumers": 5}, Share(4, Limit.CONSUMERS)),
        ({"held_at_most": 7}, Share(6, Limit.HANG)),
        ({"channel_at_most": 16}, Share(15, Limit.HANG)),
        ({"standing": 0, "max_consumers": 5}, Share(5, Limit.CONSUMERS)),
    ],
)
def test_a_cap_holds_and_says_its_name(
    measured: dict[str, float | bool | None], share: Share
) -> None:
    shares = entitlement([demand(EMAIL_LOW, 5_000, **measured), demand(SMS_LOW)], 64)
    assert shares[EMAIL_LOW] == share


def test_queues_of_a_hanging_channel_share_what_it_may_hold() -> None:
    hung = [
        demand(SMS_HIGH, 5_000, channel_at_most=16),
        demand(SMS_LOW, 5_000, channel_at_most=16),
    ]
    shares = entitlement([*hung, demand(EMAIL_LOW, 5_000)], 64)
    # 16 less two standing ones: 13 and 1 by weight, and the other channel has the rest.
    assert [share.consumers for share in shares.values()] == [13, 1, 50]


def test_no_consumers_is_an_answer_too() -> None:
    assert entitlement([demand(EMAIL_HIGH, 10)], 0)[EMAIL_HIGH] == Share(0, Limit.CONSUMERS)


def settle(
    demands: list[QueueDemand], holdings: dict[QueueKey, Holding], bench: int = 0
) -> tuple[Move, ...]:
    pool = bench + sum(holding.consumers for holding in holdings.values())
    return moves(demands, entitlement(demands, pool), holdings, bench=bench)


def test_the_idle_go_to_the_short_queue_in_one_tick() -> None:
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 5_000)]
    holdings = {EMAIL_HIGH: Holding(consumers=60), EMAIL_LOW: Holding(consumers=4, short_ticks=1)}
    assert settle(demands, holdings) == (Move(EMAIL_HIGH, EMAIL_LOW, 60),)


def test_surplus_stays_where_it_stands_while_nobody_is_short() -> None:
    # One consumer clears 12 of 20 ms in a tick: 12 waiting is nothing to move for.
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 12)]
    holdings = {EMAIL_HIGH: Holding(consumers=64), EMAIL_LOW: Holding(consumers=0)}
    assert settle(demands, holdings) == ()


def test_a_short_queue_takes_no_more_than_clear_it_in_two_ticks() -> None:
    # 200 * 0.02 s / 0.5 s = 8, one of them the standing one, three there already.
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 200)]
    holdings = {EMAIL_HIGH: Holding(consumers=61), EMAIL_LOW: Holding(consumers=3)}
    assert settle(demands, holdings) == (Move(EMAIL_HIGH, EMAIL_LOW, 4),)


def test_what_was_in_use_in_the_last_seconds_is_kept() -> None:
    demands = [demand(EMAIL_HIGH, arrivals_per_s=1_000), demand(EMAIL_LOW, 5_000)]
    holdings = {
        EMAIL_HIGH: Holding(consumers=30, peak_use=21),
        EMAIL_LOW: Holding(consumers=34, peak_use=35, short_ticks=9),
    }
    assert settle(demands, holdings) == (Move(EMAIL_HIGH, EMAIL_LOW, 10),)


@pytest.mark.parametrize(("short_ticks", "moved"), [(3, 0), (4, 31)])
def test_the_busy_are_taken_only_from_who_has_too_many_and_only_after_four_ticks(
    short_ticks: int, moved: int
) -> None:
    demands = [demand(EMAIL_HIGH, 5_000), demand(SMS_HIGH, 5_000)]
    holdings = {
        EMAIL_HIGH: Holding(consumers=63, peak_use=64, short_ticks=99),
        SMS_HIGH: Holding(consumers=1, peak_use=2, short_ticks=short_ticks),
    }
    made = settle(demands, holdings)
    assert sum(move.count for move in made) <= moved
    assert bool(made) == bool(moved)


def test_small_differences_move_nobody() -> None:
    demands = [demand(EMAIL_HIGH, 5_000), demand(SMS_HIGH, 5_000)]
    holdings = {
        EMAIL_HIGH: Holding(consumers=35, peak_use=36, short_ticks=99),
        SMS_HIGH: Holding(consumers=29, peak_use=30, short_ticks=99),
    }
    assert settle(demands, holdings) == ()


def test_the_bench_goes_first() -> None:
    demands = [demand(EMAIL_HIGH), demand(EMAIL_LOW, 5_000)]
    holdings = {EMAIL_HIGH: Holding(consumers=10), EMAIL_LOW: Holding(consumers=0)}
    made = settle(demands, holdings, bench=5)
    assert made == (Move(None, EMAIL_LOW, 5), Move(EMAIL_HIGH, EMAIL_LOW, 10))


def test_what_is_above_a_cap_leaves_though_nobody_is_short() -> None:
    demands = [demand(EMAIL_HIGH, max_consumers=4), demand(EMAIL_LOW)]
    holdings = {EMAIL_HIGH: Holding(consumers=10, peak_use=11), EMAIL_LOW: Holding(consumers=0)}
    assert settle(demands, holdings) == (Move(EMAIL_HIGH, None, 7),)


def test_a_paused_queue_receives_nobody_and_keeps_who_is_not_asked_for() -> None:
    demands = [demand(EMAIL_HIGH, 900, is_paused=True), demand(EMAIL_LOW)]
    holdings = {EMAIL_HIGH: Holding(consumers=10, short_ticks=9), EMAIL_LOW: Holding(consumers=5)}
    assert settle(demands, holdings) == ()


def test_a_stuck_consumer_uses_none_of_the_rate() -> None:
    slow = demand(EMAIL_LOW, 5_000, rate_per_s=1.0, stuck=3)
    assert entitlement([slow, demand(SMS_LOW)], 64)[EMAIL_LOW] == Share(4, Limit.RATE)


def test_all_that_are_lost_to_a_hang_that_is_over_are_made_good() -> None:
    assert demand(SMS_HIGH, 1_000, stuck=30, lost=13).made_good == 17
    assert demand(SMS_HIGH, 0, lost=13).made_good == 0


def test_a_little_above_the_cap_of_a_rate_they_stay_until_another_queue_is_short() -> None:
    # The cap is 6 with the standing one; 7 may stay, 8 not.
    paced = demand(EMAIL_LOW, 5_000, rate_per_s=100.0)
    in_line = Holding(consumers=6, peak_use=7, short_ticks=9)
    assert (
        settle([paced, demand(SMS_LOW)], {EMAIL_LOW: in_line, SMS_LOW: Holding(consumers=0)}) == ()
    )
    too_many = Holding(consumers=7, peak_use=8, short_ticks=9)
    holdings = {EMAIL_LOW: too_many, SMS_LOW: Holding(consumers=0)}
    assert settle([paced, demand(SMS_LOW)], holdings) == (Move(EMAIL_LOW, None, 2),)
    busy = {EMAIL_LOW: in_line, SMS_HIGH: Holding(consumers=0, peak_use=1, short_ticks=1)}
    assert settle([paced, demand(SMS_HIGH, 500)], busy) == (Move(EMAIL_LOW, SMS_HIGH, 1),)


def test_who_leaves_a_queue_in_the_middle_of_a_call_that_hangs_is_given_to_none() -> None:
    hung = demand(SMS_LOW, 5_000, channel_at_most=5, stuck=9)
    holdings = {
        SMS_LOW: Holding(consumers=10, peak_use=11, short_ticks=9),
        EMAIL_HIGH: Holding(consumers=0, peak_use=1, short_ticks=9),
    }
    made = settle([hung, demand(EMAIL_HIGH, 500)], holdings)
    assert made == (Move(SMS_LOW, None, 6), Move(None, EMAIL_HIGH, 1))


def test_once_a_hang_is_over_the_busy_of_others_come_in_one_tick() -> None:
    demands = [demand(EMAIL_LOW, 5_000), demand(SMS_HIGH, 5_000)]
    holdings = {
        EMAIL_LOW: Holding(consumers=51, peak_use=52, short_ticks=99),
        SMS_HIGH: Holding(consumers=13, peak_use=14, short_ticks=99),
    }
    due = entitlement(demands, 64)[SMS_HIGH].consumers
    made = settle(demands, holdings)
    assert 13 + sum(move.count for move in made) >= 0.8 * due
