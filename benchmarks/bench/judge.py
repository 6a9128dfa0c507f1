"""`make bench-quick`: compares the ratios to peers with the committed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bench.results import Round, ratios, spreads

LEAST = 0.8
"""Share of the committed ratio below which a ratio is a miss; quick rounds vary by less."""
FIGURE = "per_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A ratio now and in the committed results (`then`); None, if not measured, is no miss."""

    workload: str
    peer: str
    now: float
    then: float | None

    @property
    def is_met(self) -> bool:
        return self.then is None or self.now >= LEAST * self.then


def judge(rounds: Sequence[Round], committed: Sequence[Round]) -> Sequence[Verdict]:
    """Return every throughput ratio of these rounds with the committed one."""
    then = _throughputs(committed)
    return [
        Verdict(workload=workload, peer=peer, now=now, then=then.get((workload, peer)))
        for (workload, peer), now in _throughputs(rounds).items()
    ]


def _throughputs(rounds: Sequence[Round]) -> Mapping[tuple[str, str], float]:
    found = ratios(spreads(rounds))
    return {(workload, peer): of for (workload, peer, what), of in found.items() if what == FIGURE}
