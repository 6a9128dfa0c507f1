"""The loop that counts: how much at once, and that nothing ends it."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.domain.errors import StoreUnavailable
from notifier.ports.stats import RolledUp
from notifier.recovery.stats_roll_up import MAX_CHANGES, PRUNE_EVERY, StatsRollUp


class ScriptedRollUps:
    """Answers steps in order: with a number of changes, None, or an error. Then nothing is left."""

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.prunes = 0

    async def step(self, count: int) -> RolledUp:
        self.asked.append(count)
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        return RolledUp(answer, 3.0 if answer is None else answer / 10)

    async def prune(self) -> int:
        self.prunes += 1
        return 0


class Observed:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, float]] = []

    def stats_rolled_up(self, changes: int, behind_s: float) -> None:
        self.reports.append((changes, behind_s))


async def passes(store: ScriptedRollUps, count: int = 1) -> tuple[Sequence[int], Observed]:
    observed = Observed()
    loop = StatsRollUp(store=store, observer=observed)
    return [await loop.run_once() for _ in range(count)], observed


async def test_a_pass_counts_until_nothing_is_left() -> None:
    counted, observed = await passes(ScriptedRollUps(100, 7, 0))
    assert counted == [107]
    assert observed.reports == [(100, 10.0), (7, 0.7), (0, 0.0)]


async def test_while_another_process_counts_a_pass_does_nothing() -> None:
    store = ScriptedRollUps(None, 5)
    counted, observed = await passes(store)
    assert (counted, observed.reports, store.answers) == ([0], [(0, 3.0)], [5])


async def test_after_a_failure_steps_are_smaller_until_one_succeeds() -> None:
    failure = StoreUnavailable("statement time-out")
    store = ScriptedRollUps(failure, failure, 3, 3, 3, 0)
    counted, _ = await passes(store, 3)
    assert counted == [0, 0, 9]
    assert store.asked == [MAX_CHANGES, MAX_CHANGES // 2, *(MAX_CHANGES // n for n in (4, 2, 1, 1))]


async def test_no_error_ends_the_process_and_a_step_has_one_change_at_least() -> None:
    store = ScriptedRollUps(*(ValueError() for _ in range(9)))
    await passes(store, 10)
    assert store.asked[-1] == 1


async def test_rows_are_removed_once_in_many_passes() -> None:
    store = ScriptedRollUps()
    await passes(store, PRUNE_EVERY + 1)
    assert store.prunes == 2
