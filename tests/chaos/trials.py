"""Overload trials: each is played once per run and judged by its figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.figure import Figure, format_value
from tests.chaos.arena import Arena
from tests.chaos.hostile import (
    endless_bodies,
    idle_connections,
    many_headers,
    slow_bodies,
    slow_heads,
)
from tests.chaos.idempotency import idempotency_kills
from tests.chaos.overload import overload
from tests.chaos.restart import RATES, everything_restarted
from tests.chaos.results import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An overload trial."""

    run: Callable[[Arena], Awaitable[Sequence[Figure]]]
    text: str
    workers: Sequence[Sequence[str]] = ((),)
    linked: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.run.__name__


async def try_out(arena: Arena, trial: Trial, *, number: int, seed: int) -> Result:
    """Play a trial; its missed figures are the error."""
    figures = await trial.run(arena)
    missed = [figure for figure in figures if not figure.is_met]
    await arena.supervise()
    return Result(
        fault=trial.name,
        round=number,
        seed=seed,
        within_s=0,
        recovery_s=0,
        broke="; ".join(map(_words, missed)),
        figures=[_words(figure) for figure in figures],
        evidence=arena.ended,
    )


def _words(figure: Figure) -> str:
    return f"{figure.name} {format_value(figure.value, figure.unit)} ({figure.target})"


TRIALS: Final[Mapping[str, Trial]] = {
    trial.name: trial
    for trial in (
        Trial(
            run=overload,
            linked=True,
            text="Three times the submits that Postgres can commit, for a minute "
            "(three with `CHAOS_LONG=1`).",
        ),
        Trial(run=slow_heads, text="500 callers send a byte of a header a second."),
        Trial(run=slow_bodies, text="500 callers send a byte of a body a second."),
        Trial(
            run=idle_connections,
            text="5,000 callers connect to an API that may open 1,024 files, and send nothing.",
        ),
        Trial(run=endless_bodies, text="20 callers send bodies without an end."),
        Trial(run=many_headers, text="50 callers send 10,000 headers each."),
        Trial(
            run=idempotency_kills,
            workers=(),
            text="Four API processes behind proxies; 20,000 submits (100,000 with `CHAOS_LONG=1`) "
            "with idempotency keys, each key in one to five of them, some with another body, some "
            "beside a twin that Postgres refuses. Every 5 s a process of the commit that brought "
            "the keys is killed (-9) and one of this code started; answers to callers and of "
            "Postgres are lost; the day changes.",
        ),
        Trial(
            run=everything_restarted,
            workers=((), ()),
            settings=RATES,
            text="1,000,000 notifications wait and the providers allow 600 per second; API, both "
            "workers, RabbitMQ and Postgres are killed (-9) at once and restarted at once. "
            "Counted from then.",
        ),
    )
}
