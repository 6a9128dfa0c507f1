"""What became of a round: pure, so that the judge can be judged by tests.

The sandbox's log says what was sent, the rows what is claimed of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from harness.judge import count_within, doubled, times_accepted

RIGHT: Final[Mapping[str, str]] = {
    "ok": "sent",
    "flaky-2": "sent",
    "throttle-2": "sent",
    "refuse": "failed",
    "down": "failed",
    "hang": "failed",
    "cut": "failed",  # taken each time, and never answered
}
FINAL: Final = frozenset({"sent", "failed", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A notification as it stands; `at` is the instant of its last change.

    Marks of a double are an attempt that is Ambiguous, or one whose outcome came late: of a worker
    that was taken for dead, and amended the Ambiguous one that others had written.
    """

    status: str
    at: float
    is_ambiguous: bool = False
    is_late: bool = False
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`lost` says of each id why; `unmarked` doubles are those that no attempt explains.

    What a provider takes and cuts by its fate is doubled by design: it counts in `unmarked` alone.
    """

    final: int
    lost: Mapping[str, str]
    doubled: frozenset[str]
    unmarked: frozenset[str]


def judge(
    accepted: Mapping[str, str], rows: Mapping[str, Row], calls: Iterable[Mapping[str, Any]]
) -> Verdict:
    """`accepted` has the fate of everything that was answered with 202."""
    times = times_accepted(calls)
    twice = doubled(times) & set(accepted)
    why = {
        which: _why_lost(fate, rows.get(which), is_taken=times[which] > 0)
        for which, fate in accepted.items()
    }
    return Verdict(
        final=sum(_is_final(rows.get(which)) for which in accepted),
        lost={which: words for which, words in why.items() if words},
        doubled=frozenset(which for which in twice if accepted[which] != "cut"),
        unmarked=frozenset(which for which in twice if not _is_marked(rows.get(which))),
    )


def _is_final(row: Row | None) -> bool:
    return row is not None and row.status in FINAL


def _is_marked(row: Row | None) -> bool:
    return row is not None and (row.is_ambiguous or row.is_late)


def _why_lost(fate: str, row: Row | None, *, is_taken: bool) -> str:
    """Why it counts as lost; empty if it does not."""
    if row is None:
        return f"{fate}: no row"
    if not _is_final(row):
        return f"{fate}: still {row.status}"
    if row.status != RIGHT[fate]:
        return f"{fate}: {row.status}, expected {RIGHT[fate]}"
    if row.status == "sent" and not is_taken:
        return f"{fate}: sent and never taken"
    if not row.attempts:
        return f"{fate}: {row.status} and never tried"
    return ""


def recovery_s(
    ended_at: float,
    *,
    held: Collection[str],
    asked_at: Mapping[str, float],
    accepted: Mapping[str, str],
    rows: Mapping[str, Row],
) -> float:
    """Seconds from the end of a fault until work flows, and all that the fault held is final.

    It flows when something submitted since is sent. Only what a provider takes at once is looked
    at: the retries of the others take their time.
    """
    sent_at = {
        which: rows[which].at
        for which, fate in accepted.items()
        if fate == "ok" and which in rows and rows[which].status == "sent"
    }
    flows_at = min(
        (at for which, at in sent_at.items() if asked_at[which] >= ended_at), default=inf
    )
    whole_at = max(
        (sent_at.get(which, inf) for which in held if accepted.get(which) == "ok"), default=ended_at
    )
    return max(flows_at, whole_at) - ended_at


def full_again_s(at: Sequence[float], since: float, *, wanted: float, span_s: float) -> float:
    """Seconds from `since` until a span begins that has so many of the sorted instants a second.

    It begins at one of them; infinity if none is so full.
    """
    least = wanted * span_s
    begins = (start for start in at if start >= since)
    full_at = next((each for each in begins if count_within(at, each, each + span_s) >= least), inf)
    return full_at - since
