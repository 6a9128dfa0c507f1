"""All rounds of one fault, on one system."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    redirect_stdout,
)
from pathlib import Path
from typing import Final

import msgspec

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
"""Between the seeds of a round that does not count and of its repetition."""
Note = Callable[[Result], None]
Tell = Callable[[str], None]


def missing(rounds: int, seed: int, played: Sequence[Result]) -> Sequence[int]:
    """The numbers of the rounds of this seed that were not played yet."""
    done = {each.round for each in played if (each.seed - seed) % SEEDS_APART == 0}
    return [number for number in range(1, rounds + 1) if number not in done]


async def play_all(
    stack: Stack, fault: Fault, numbers: Sequence[int], seed: int, note: Note, tell: Tell
) -> None:
    """`note` is told every round that counts; what breaks ends this fault's rounds."""
    number = numbers[0]
    try:
        async with _arena(stack, fault) as arena:
            for number in numbers:
                tell(f"{fault.name}: round {number} of {numbers[-1]}")
                began, arena.ended = time.monotonic(), []
                result = await counted(arena, fault, number, seed, tell)
                note(result)
                tell(f"{_line(result)}  ({time.monotonic() - began:.0f} s)")
    except Exception as error:  # noqa: BLE001 whatever broke the round is its result
        broke = Result(fault=fault.name, round=number, seed=seed, within_s=fault.within_s)
        _tell_broken(broke, error, note, tell)


async def play_trial(stack: Stack, trial: Trial, seed: int, note: Note, tell: Tell) -> None:
    """The same of a trial, which is played once."""
    tell(trial.name)
    try:
        async with _quiet(stack), _trial_arena(stack, trial) as arena:
            result = await try_out(arena, trial, number=1, seed=seed)
            note(result)
            tell("\n    ".join([f"{trial.name}:", *result.figures, *result.evidence]))
    except Exception as error:  # noqa: BLE001 whatever broke the trial is its result
        broke = Result(fault=trial.name, round=1, seed=seed, within_s=0)
        _tell_broken(broke, error, note, tell)


def _tell_broken(result: Result, error: BaseException, note: Note, tell: Tell) -> None:
    words = f"{type(error).__name__}: {' '.join(str(_first(error)).split())[:500]}"
    tell(f"{result.fault}: {words}")
    note(msgspec.structs.replace(result, broke=words))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _quiet(stack: Stack) -> AsyncIterator[None]:
    """Its processes' last words go to a file: there are many, and few are of interest."""
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
            open_arena(stack, workers=fault.workers, linked=fault.linked, **fault.settings)
        )


def _trial_arena(stack: Stack, trial: Trial) -> AbstractAsyncContextManager[Arena]:
    return open_arena(stack, workers=trial.workers, linked=trial.linked, **trial.settings)


@asynccontextmanager
async def _on_cluster(stack: Stack) -> AsyncIterator[Stack]:
    """The same with three nodes of its own."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=stack.folder))
    folder.chmod(0o711)
    async with open_cluster(folder) as nodes:
        yield Stack(folder, stack.postgres, *nodes)


@asynccontextmanager
async def _on_small_disk(stack: Stack) -> AsyncIterator[Stack]:
    """The same with a Postgres of its own."""
    folder = stack.folder / "small"
    with small_disk(folder):
        async with open_postgres(folder / "postgres", keep=False) as postgres:
            yield Stack(folder, postgres, stack.rabbitmq)


async def counted(
    arena: Arena, fault: Fault, number: int, seed: int, tell: Tell, pace: Pace = PACE
) -> Result:
    """The first round in which the fault hit enough."""
    for repeat in range(REPEATS):
        try:
            return await play(
                arena, fault, number=number, seed=seed + SEEDS_APART * repeat, pace=pace
            )
        except* TooFewInFlight as errors:
            tell(f"does not count: {_first(errors)}")
            await arena.supervise()
    raise TooFewInFlight(f"in {REPEATS} rounds")


def _line(one: Result) -> str:
    word = "kept  " if one.is_kept else "BROKEN"
    return (
        f"{word} {one.fault} {one.variant}: {one.accepted} accepted, {one.unanswered} refused, "
        f"{one.in_flight} in flight, {one.lost} lost, {one.doubled} doubled, "
        f"{one.unmarked} unmarked, {one.recovered_s:.1f} s"
        + "".join(f"\n    {each[:300]}" for each in one.evidence)
    )
