"""How much one worker may have claimed at once."""

from __future__ import annotations

import asyncio

from notifier.domain.notification import QueueKey
from notifier.ports.broker import Pointer
from notifier.scheduling.consumers.claim_budget import (
    HANGS_AFTER_S,
    KEPT_FOR_HIGH,
    MAX_CLAIMED_BYTES,
    MAX_CLAIMED_ROWS,
    MAX_WITH_ONE_DEATH,
    ClaimBudget,
)
from tests.builders import EMAIL_HIGH, EMAIL_LOW, new_id


def pointer(queue: QueueKey = EMAIL_LOW, *, size: int = 0, deaths: int = 0) -> Pointer:
    return Pointer(queue=queue, id=new_id(), claim=0, published_at=0.0, size=size, deaths=deaths)


def test_there_is_room_up_to_the_rows_and_again_once_one_is_settled() -> None:
    budget = ClaimBudget()
    for _ in range(MAX_CLAIMED_ROWS):
        assert budget.rows_left > 0
        budget.add(pointer())
    assert (budget.rows_left, budget.bytes_left) == (0, MAX_CLAIMED_BYTES)
    budget.remove(pointer())
    assert (budget.rows_left, budget.bytes_left) == (1, MAX_CLAIMED_BYTES)


def test_there_is_room_up_to_the_bytes() -> None:
    budget, large = ClaimBudget(), pointer(size=MAX_CLAIMED_BYTES)
    budget.add(pointer(size=1))
    assert budget.bytes_left == MAX_CLAIMED_BYTES - 1
    budget.add(large)
    assert (budget.rows_left, budget.bytes_left) == (0, 0)
    budget.remove(large)
    assert budget.rows_left == MAX_CLAIMED_ROWS - 1


def test_some_rows_with_one_death_are_claimed_beside_rows_without_any() -> None:
    budget = ClaimBudget()
    for _ in range(MAX_WITH_ONE_DEATH - KEPT_FOR_HIGH):
        assert budget.may_claim(pointer(deaths=1))
        budget.add(pointer(deaths=1))
    assert not budget.may_claim(pointer(deaths=1))
    assert budget.may_claim(pointer())
    budget.remove(pointer(deaths=1))
    assert budget.may_claim(pointer(deaths=1))


def test_a_row_with_two_deaths_or_more_is_claimed_beside_no_other_with_deaths() -> None:
    budget, one = ClaimBudget(), pointer(deaths=1)
    budget.add(one)
    assert not budget.may_claim(pointer(EMAIL_HIGH, deaths=2))
    budget.remove(one)
    for deaths in (2, 3):
        assert budget.may_claim(pointer(deaths=deaths))
        budget.add(pointer(deaths=deaths))
        assert not any(budget.may_claim(pointer(EMAIL_HIGH, deaths=more)) for more in (1, 2, 3))
        assert budget.may_claim(pointer())
        budget.remove(pointer(deaths=deaths))


def test_a_row_with_one_death_whose_call_hangs_holds_up_none_with_more() -> None:
    now = 0.0
    budget = ClaimBudget(lambda: now)
    hanging, fresh, more = pointer(deaths=1), pointer(deaths=1), pointer(deaths=2)
    budget.add(hanging)
    now = HANGS_AFTER_S
    assert budget.may_claim(more)
    budget.add(fresh)
    assert not budget.may_claim(more)
    budget.remove(fresh)
    assert budget.may_claim(more)
    budget.add(more)
    now += 1_000
    assert not any(budget.may_claim(pointer(EMAIL_HIGH, deaths=deaths)) for deaths in (1, 2))


def test_a_part_of_the_rows_with_one_death_is_kept_for_high() -> None:
    budget = ClaimBudget()
    for _ in range(MAX_WITH_ONE_DEATH - KEPT_FOR_HIGH):
        budget.add(pointer(deaths=1))
    for _ in range(KEPT_FOR_HIGH):
        assert budget.may_claim(pointer(EMAIL_HIGH, deaths=1))
        budget.add(pointer(EMAIL_HIGH, deaths=1))
    assert not budget.may_claim(pointer(EMAIL_HIGH, deaths=1))


async def test_all_claim_loops_are_woken_when_something_may_be_claimed_again() -> None:
    budget, wakes = ClaimBudget(), [asyncio.Event(), asyncio.Event()]
    for wake in wakes:
        budget.attach(wake)
    budget.add(pointer())
    budget.remove(pointer())
    assert not any(wake.is_set() for wake in wakes)
    budget.add(pointer(deaths=1))
    budget.remove(pointer(deaths=1))
    assert all(wake.is_set() for wake in wakes)
    for wake in wakes:
        wake.clear()
    budget.add(pointer(size=MAX_CLAIMED_BYTES))
    budget.remove(pointer(size=MAX_CLAIMED_BYTES))
    assert all(wake.is_set() for wake in wakes)
