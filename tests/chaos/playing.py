"""Plays all rounds of one fault on one system."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    redirect_stdout,
)
from functools import partial
from operator import not_
from pathlib import Path
from typing import Final

import msgspec

from harness.client import until
from harness.run import TooFewInFlight
from harness.stack import Stack
from notifier.embedded.postgres import open_postgres
from tests.chaos.arena import Arena, open_arena
from tests.chaos.cluster import open_cluster
from tests.chaos.disk import small_disk
from tests.chaos.results import Result
from tests.chaos.round import PACE, Fault, Pace, play
from tests.chaos.trials import Trial, try_out

REPEATS = 5
SEEDS_APART: Final = 1000
"""Difference between the seeds of a round that does not count and of its repetition."""
UNFINISHED: Final = "SELECT count(*) FROM live"
SETTLED_S: Final = 120.0
Note = Callable[[Result], None]
Report = Callable[[str], None]


def missing(rounds: int, seed: int, played: Sequence[Result]) -> Sequence[int]:
    """Return the numbers of the rounds of this seed that are not recorded yet."""
    done = {each.round for each in played if (each.seed - seed) % SEEDS_APART == 0}
    return [number for number in range(1, rounds + 1) if number not in done]


def plan(
    asked: Mapping[str, int], seed: int, played: Mapping[str, Sequence[Result]]
) -> Sequence[str]:
    """Return lines that say which of the rounds asked for are recorded, and how many are not.

    `asked` has the number of rounds by fault.
    """
    to_play = {name: missing(rounds, seed, played.get(name, ())) for name, rounds in asked.items()}
    recorded = {name: played[name] for name in asked if name in played}
    kept, left = (sum(map(len, each.values())) for each in (recorded, to_play))
    return [
        f"recorded and kept: {kept} rounds; to play: {left}",
        *(
            f"  {name}: {len(rounds)} recorded"
            + ("" if all(each.is_kept for each in rounds) else ", BROKEN")
            + f", {len(to_play[name])} to play"
            for name, rounds in recorded.items()
        ),
    ]


async def play_all(
    stack: Stack, fault: Fault, numbers: Sequence[int], seed: int, note: Note, report: Report
) -> None:
    """Play the rounds and pass each result to `note`; an error ends this fault's rounds."""
    number = numbers[0]
    try:
        for on_one_system in _split(fault, numbers):
            async with _arena(stack, fault) as arena:
                for number in on_one_system:
                    report(f"{fault.name}: round {number} of {numbers[-1]}")
                    began, arena.ended = time.monotonic(), []
                    result = await play_until_it_counts(arena, fault, number, seed, report)
                    note(result)
                    report(f"{_line(result)}  ({time.monotonic() - began:.0f} s)")
    except Exception as error:  # noqa: BLE001 the error is the result of the round
        broke = Result(fault=fault.name, round=number, seed=seed, within_s=fault.timeout_s)
        _report_error(broke, error, note, report)


def _split(fault: Fault, numbers: Sequence[int]) -> Sequence[Sequence[int]]:
    """Split the rounds by system: after an upgrade the next round needs a new one."""
    return [[number] for number in numbers] if fault.upgrades_from else [numbers]


async def play_trial(stack: Stack, trial: Trial, seed: int, note: Note, report: Report) -> None:
    """Play a trial once and pass its result to `note`."""
    report(trial.name)
    try:
        async with _quiet(stack), _trial_arena(stack, trial) as arena:
            result = await try_out(arena, trial, number=1, seed=seed)
            note(result)
            report("\n    ".join([f"{trial.name}:", *result.figures, *result.evidence]))
    except Exception as error:  # noqa: BLE001 the error is the result of the trial
        broke = Result(fault=trial.name, round=1, seed=seed, within_s=0)
        _report_error(broke, error, note, report)


def _report_error(result: Result, error: BaseException, note: Note, report: Report) -> None:
    words = f"{type(error).__name__}: {' '.join(str(_first(error)).split())[:500]}"
    report(f"{result.fault}: {words}")
    note(msgspec.structs.replace(result, broke=words))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _quiet(stack: Stack) -> AsyncIterator[None]:
    """Redirect the logs that processes print at their end to a file."""
    with (stack.folder / "logs").open("a") as logs, redirect_stdout(logs):
        yield


@asynccontextmanager
async def _arena(stack: Stack, fault: Fault) -> AsyncIterator[Arena]:
    async with AsyncExitStack() as exits:
        await exits.enter_async_context(_quiet(stack))
        if fault.on_small_disk:
            stack = await exits.enter_async_context(_on_small_disk(stack))
        if fault.on_cluster:
            stack = await exits.enter_async_context(_on_cluster(stack))
        yield await exits.enter_async_context(
            open_arena(
                stack,
                workers=fault.workers,
                linked=fault.linked,
                traced=fault.traced,
                keyed=fault.keyed,
                receives=fault.receives,
                upgrades_from=fault.upgrades_from,
                **fault.settings,
            )
        )


def _trial_arena(stack: Stack, trial: Trial) -> AbstractAsyncContextManager[Arena]:
    return open_arena(
        stack,
        workers=trial.workers,
        linked=trial.linked,
        traced=False,
        keyed=False,
        receives=False,
        upgrades_from="",
        **trial.settings,
    )


@asynccontextmanager
async def _on_cluster(stack: Stack) -> AsyncIterator[Stack]:
    """Yield the stack with a private RabbitMQ cluster of three nodes."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=stack.folder))
    folder.chmod(0o711)
    async with open_cluster(folder, stack.rabbitmq.install) as nodes:
        yield Stack(folder, stack.postgres, *nodes)


@asynccontextmanager
async def _on_small_disk(stack: Stack) -> AsyncIterator[Stack]:
    """Yield the stack with a private Postgres on a small disk."""
    folder = stack.folder / "small"
    with small_disk(folder):
        async with open_postgres(folder / "postgres", keep=False) as postgres:
            yield Stack(folder, postgres, stack.rabbitmq)


async def play_until_it_counts(
    arena: Arena, fault: Fault, number: int, seed: int, report: Report, pace: Pace = PACE
) -> Result:
    """Play rounds until one had enough notifications in flight. Raises TooFewInFlight."""
    for repeat in range(REPEATS):
        try:
            return await play(
                arena, fault, number=number, seed=seed + SEEDS_APART * repeat, pace=pace
            )
        except* TooFewInFlight as errors:
            report(f"does not count: {_first(errors)}")
            await arena.supervise()
            # What it left would delay the next one: its rows whose worker died are sent one by one.
            await until(partial(arena.run.number, UNFINISHED), not_, SETTLED_S)
    raise TooFewInFlight(f"too few notifications in flight in {REPEATS} rounds")


def _line(result: Result) -> str:
    word = "kept  " if result.is_kept else "BROKEN"
    return (
        f"{word} {result.fault} {result.variant}: "
        f"{result.accepted} accepted, {result.unanswered} refused, "
        f"{result.in_flight} in flight, {result.lost} lost, {result.doubled} doubled, "
        f"{result.unmarked} unmarked, {result.recovered_s:.1f} s"
        + "".join(
            f"\n    {each[:300]}" for each in (*result.broke.split("; "), *result.evidence) if each
        )
    )
