"""A promised figure, measured in several rounds, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number measured in one round. A figure without bounds is only reported.

    The median of all rounds is compared with the bounds, or the worst round if `always` is set.
    """

    name: str
    value: float
    unit: str = ""
    low: float = -inf
    high: float = inf
    always: bool = False

    @property
    def is_met(self) -> bool:
        return self.low <= self.value <= self.high

    @property
    def target(self) -> str:
        if self.low == self.high:
            return format_value(self.high, self.unit)
        lower = f">= {format_value(self.low, self.unit)}" if self.low > -inf else ""
        upper = f"<= {format_value(self.high, self.unit)}" if self.high < inf else ""
        return " ".join(part for part in (lower, upper) if part) or "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row of the result table."""

    line: str
    name: str
    target: str
    measured: str
    is_met: bool


def never(name: str, count: float) -> Figure:
    """Return a figure that must be 0 in every round."""
    return Figure(name=name, value=count, low=0, high=0, always=True)


def judge(line: str, rounds: Sequence[Sequence[Figure]]) -> list[Verdict]:
    """Return the verdicts on a line; each round has the same figures in the same order."""
    return [_verdict(line, same) for same in zip(*rounds, strict=True)]


def failed(line: str, error: BaseException) -> Verdict:
    """Return the verdict on a line that raised an error before it was measured: missed."""
    text = " ".join(str(error).split())[:300] or "no message"
    measured = f"{type(error).__name__}: {text}"
    return Verdict(line=line, name="", target="measured", measured=measured, is_met=False)


def format_value(value: float, unit: str) -> str:
    if isinf(value):
        return "never"
    if unit == "%":
        return f"{100 * value:.4g} %"
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def _verdict(line: str, same: Sequence[Figure]) -> Verdict:
    first, decisive = same[0], _decisive(same)
    rounds = ", ".join(
        format_value(figure.value, "" if figure.unit != "%" else "%") for figure in same
    )
    return Verdict(
        line=line,
        name=first.name,
        target=first.target,
        measured=format_value(decisive.value, decisive.unit)
        + (f"  ({rounds})" if len(same) > 1 else ""),
        is_met=all(figure.is_met for figure in same) if first.always else decisive.is_met,
    )


def _decisive(same: Sequence[Figure]) -> Figure:
    """Return the figure that the table shows: the worst or the median."""
    first = same[0]
    if first.always:
        return next((figure for figure in same if not figure.is_met), first)
    middle = median(figure.value for figure in same)
    return Figure(name=first.name, value=middle, unit=first.unit, low=first.low, high=first.high)
