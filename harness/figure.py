"""A promised number as one round measured it, and what several rounds of it say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of one round. Without a bound it only informs.

    A figure that `always` holds is judged by its worst round, the others by the median.
    """

    name: str
    value: float
    unit: str = ""
    least: float = -inf
    most: float = inf
    always: bool = False

    @property
    def is_met(self) -> bool:
        return self.least <= self.value <= self.most

    @property
    def target(self) -> str:
        if self.least == self.most:
            return said(self.most, self.unit)
        low = f">= {said(self.least, self.unit)}" if self.least > -inf else ""
        high = f"<= {said(self.most, self.unit)}" if self.most < inf else ""
        return " ".join(part for part in (low, high) if part) or "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row of the table."""

    line: str
    name: str
    target: str
    measured: str
    is_met: bool


def never(name: str, count: float) -> Figure:
    """What must not happen, not in any round."""
    return Figure(name=name, value=count, least=0, most=0, always=True)


def judge(line: str, rounds: Sequence[Sequence[Figure]]) -> list[Verdict]:
    """The verdicts on a line's rounds, each of which has the same figures in the same order."""
    return [_verdict(line, same) for same in zip(*rounds, strict=True)]


def failed(line: str, error: BaseException) -> Verdict:
    """A line that broke before it could be measured is missed."""
    words = " ".join(str(error).split())[:300] or "no word"
    measured = f"{type(error).__name__}: {words}"
    return Verdict(line=line, name="", target="measured", measured=measured, is_met=False)


def said(value: float, unit: str) -> str:
    if isinf(value):
        return "never"
    if unit == "%":
        return f"{100 * value:.4g} %"
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def _verdict(line: str, same: Sequence[Figure]) -> Verdict:
    first, counts = same[0], _counting(same)
    rounds = ", ".join(said(one.value, "" if one.unit != "%" else "%") for one in same)
    return Verdict(
        line=line,
        name=first.name,
        target=first.target,
        measured=said(counts.value, counts.unit) + (f"  ({rounds})" if len(same) > 1 else ""),
        is_met=all(one.is_met for one in same) if first.always else counts.is_met,
    )


def _counting(same: Sequence[Figure]) -> Figure:
    """The figure that the table shows: the worst, or the one in the middle."""
    first = same[0]
    if first.always:
        return next((one for one in same if not one.is_met), first)
    middle = median(one.value for one in same)
    return Figure(
        name=first.name, value=middle, unit=first.unit, least=first.least, most=first.most
    )
