"""All rounds of one fault, on one system."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout

from benchmarks.prove.run import TooFewInFlight
from benchmarks.prove.stack import Stack
from notifier.embedded.postgres import open_postgres
from tests.chaos.arena import Arena, open_arena
from tests.chaos.disk import small_disk
from tests.chaos.results import Result
from tests.chaos.round import PACE, Fault, Pace, play

REPEATS = 5
Note = Callable[[Result], None]
Tell = Callable[[str], None]


async def play_all(
    stack: Stack, fault: Fault, rounds: int, seed: int, note: Note, tell: Tell
) -> None:
    """`note` is told every round that counts; what breaks ends this fault's rounds."""
    done = 0
    try:
        async with _arena(stack, fault) as arena:
            for done in range(rounds):
                tell(f"{fault.name}: round {done + 1} of {rounds}")
                began, arena.ended = time.monotonic(), []
                result = await counted(arena, fault, done + 1, seed, tell)
                note(result)
                tell(f"{_line(result)}  ({time.monotonic() - began:.0f} s)")
            done = rounds
    except Exception as error:  # noqa: BLE001 whatever broke the round is its result
        words = f"{type(error).__name__}: {' '.join(str(_first(error)).split())[:500]}"
        tell(f"{fault.name}: {words}")
        note(
            Result(
                fault=fault.name, round=done + 1, seed=seed, within_s=fault.within_s, broke=words
            )
        )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _arena(stack: Stack, fault: Fault) -> AsyncIterator[Arena]:
    """Its processes' last words go to a file: there are many, and few are of interest."""
    async with AsyncExitStack() as exits:
        logs = exits.enter_context((stack.folder / "logs").open("a"))
        exits.enter_context(redirect_stdout(logs))
        if fault.on_small_disk:
            stack = await exits.enter_async_context(_on_small_disk(stack))
        yield await exits.enter_async_context(
            open_arena(stack, workers=fault.workers, linked=fault.linked, **fault.settings)
        )


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
            return await play(arena, fault, number=number, seed=seed + 1000 * repeat, pace=pace)
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
