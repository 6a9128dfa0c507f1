"""`make bench-quick`: whether Notifier has lost ground to its peers since the committed results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bench.results import Round, ratios, spreads

LEAST = 0.8
"""Of the committed ratio; below it is a miss. Quick rounds spread by less."""
FIGURE = "per_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`then` is the committed ratio, None where none was measured: that is no miss."""

    workload: str
    peer: str
    now: float
    then: float | None

    @property
    def is_met(self) -> bool:
        return self.then is None or self.now >= LEAST * self.then


def judge(rounds: Sequence[Round], committed: Sequence[Round]) -> Sequence[Verdict]:
    """Every ratio of throughputs of these rounds beside the committed one."""
    then = _throughputs(committed)
    return [
        Verdict(workload=workload, peer=peer, now=now, then=then.get((workload, peer)))
        for (workload, peer), now in _throughputs(rounds).items()
    ]


def _throughputs(rounds: Sequence[Round]) -> Mapping[tuple[str, str], float]:
    found = ratios(spreads(rounds))
    return {(workload, peer): of for (workload, peer, what), of in found.items() if what == FIGURE}
