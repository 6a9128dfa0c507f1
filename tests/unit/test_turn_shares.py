"""How a queue's room is divided among its turns."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from notifier.delivery.class_cursor import ClassRead
from notifier.delivery.turn_shares import (
    IDLE_INTERVAL_S,
    MAX_IDLE_READ,
    NEW_ROWS,
    STEPS,
    Division,
    TurnShares,
)
from notifier.domain.due import DueClass
from notifier.domain.turns import TURNS

FIRST, BACK = DueClass.FIRST, DueClass.BACK
OTHERS = range(1, TURNS)


def read(got: int, *, has_more: bool) -> Mapping[DueClass, ClassRead]:
    return {FIRST: ClassRead(got, has_more)}


def run_passes(waiting: dict[int, int], *, room: int, passes: int) -> dict[int, int]:
    """Publish rows of turns of which so many wait; return how many of each were published."""
    waiting = {0: 0} | waiting
    shares, published, now = TurnShares(), dict.fromkeys(waiting, 0), 0.0
    others = [turn for turn in waiting if turn]
    for _ in range(passes):
        now += 0.1
        first, limits = shares.divide(others, room, now)
        wanted = {0: first} | {turn: max(of.values()) for turn, of in limits.items()}
        counts = {turn: min(waiting[turn], limit) for turn, limit in wanted.items()}
        granted = shares.grant(counts, room)
        assert sum(granted.values()) <= room
        for turn, count in granted.items():
            waiting[turn] -= count
            published[turn] += count
        shares.record(
            {turn: read(granted[turn], has_more=waiting[turn] > 0) for turn in granted}, now
        )
    return published


def test_a_queue_with_one_turn_is_read_as_if_there_were_none() -> None:
    assert TurnShares().divide([], 500, 0.0) == Division(500, {})


@pytest.mark.parametrize("room", [1, 2, 5, 100, 1000])
def test_turns_with_many_rows_get_the_same(room: int) -> None:
    passes = 4000 // room + 20
    published = run_passes({1: 10**6, 2: 10**6, 3: 10**6}, room=room, passes=passes)
    del published[0]
    assert max(published.values()) - min(published.values()) <= 2 * room + NEW_ROWS


@pytest.mark.parametrize("room", [1, 2, 5, 100, 1000])
def test_turn_0_gets_as_much_as_all_others(room: int) -> None:
    passes = 4000 // room + 20
    published = run_passes({0: 10**6, 1: 10**6, 2: 10**6, 3: 10**6}, room=room, passes=passes)
    assert abs(published[0] - sum(published.values()) / 2) <= 2 * room + NEW_ROWS


def test_few_rows_do_not_wait_for_many() -> None:
    """Ten rows of turn 2 are published with the first of the million rows of turn 1."""
    published = run_passes({1: 10**6, 2: 10}, room=20, passes=3)
    assert published[2] == 10


def test_no_room_is_left_while_rows_wait() -> None:
    published = run_passes({1: 10**6, 2: 10}, room=100, passes=20)
    assert sum(published.values()) >= 100 * 18


def test_a_turn_that_was_empty_does_not_catch_up() -> None:
    shares = TurnShares()
    for now in range(100):
        shares.divide([1, 2], 100, now)
        shares.record({1: read(100, has_more=True)}, now)
    shares.record({2: read(0, has_more=True)}, 100.0)
    granted = shares.grant({1: 100, 2: 100}, 100)
    assert abs(granted[1] - granted[2]) <= 100 / STEPS


def test_claimed_rows_at_the_limit_give_the_rest_to_others() -> None:
    assert TurnShares().grant({0: 3, 1: 1000, 2: 5}, 100) == {0: 3, 1: 92, 2: 5}


def test_idle_turns_are_read_some_at_a_time_and_all_soon() -> None:
    shares, seen, now = TurnShares(), set[int](), 100.0
    for _ in range(4):
        division = shares.divide(OTHERS, 500, now)
        assert len(division.others) <= MAX_IDLE_READ
        assert division.first == 500
        seen |= division.others.keys()
        shares.record({turn: read(0, has_more=False) for turn in division.others}, now)
        now += IDLE_INTERVAL_S / 4
    assert seen == set(OTHERS)


def test_at_most_64_turns_are_read_however_many_rows_wait() -> None:
    shares = TurnShares()
    for now in range(20):
        shares.record(
            {turn: read(1 if turn else TURNS, has_more=True) for turn in range(TURNS)}, now
        )
    division = shares.divide(OTHERS, 1000, 20.0)
    assert len(division.others) == TURNS - 1
    limits = [
        of_turn[FIRST] + of_turn.get(DueClass.RETRY, 0) for of_turn in division.others.values()
    ]
    assert sum(limits) + division.first <= 1000


def test_turns_that_wait_make_the_queue_backlogged() -> None:
    shares, seen = TurnShares(), list[bool]()
    for classes in (
        {},
        {0: read(1, has_more=True), 1: read(1, has_more=False)},
        {1: read(1, has_more=True)},
        {0: {BACK: ClassRead(0, has_more=False)}},
        {1: read(0, has_more=False)},
    ):
        shares.record(classes, 1.0)
        seen.append(shares.is_backlogged)
    assert seen == [False, False, True, True, False]
