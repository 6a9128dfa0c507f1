"""The verdict on a round. Pure, so that tests can check it.

The sandbox's log shows what was sent; the rows in Postgres show what Notifier recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from harness.judge import count_within, doubled, times_accepted
from notifier.domain.notification import FINAL

RIGHT: Final[Mapping[str, str]] = {
    "ok": "sent",
    "flaky-2": "sent",
    "refuse": "failed",
    "down": "failed",
    "hang": "failed",
    "cut": "failed",  # accepted each time, but the reply is cut
    "poison": "failed",  # each call kills its worker
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The row of a notification; `at` is when it ended, or when its last call did.

    Two things explain a second send: an Ambiguous attempt, or an attempt whose outcome came late.
    The latter is of a worker that was considered dead; it amended the Ambiguous attempt that
    another process had written.
    """

    status: str
    at: float
    is_ambiguous: bool = False
    is_late: bool = False
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`lost` maps ids to the reason; `unmarked` are duplicates that no attempt explains.

    Recipients whose fate is `cut` are sent to repeatedly by design and count in `unmarked` alone.
    """

    final: int
    lost: Mapping[str, str]
    doubled: frozenset[str]
    unmarked: frozenset[str]


def judge(
    accepted: Mapping[str, str],
    rows: Mapping[str, Row],
    calls: Iterable[Mapping[str, Any]],
    excused: Collection[str] = (),
) -> Verdict:
    """Judge a round; `accepted` maps every id that got a 202 to its fate.

    Those `excused` may have another final status than their fate says.
    """
    times = times_accepted(calls)
    twice = doubled(times) & set(accepted)
    why = {
        which: _why_lost(fate, rows.get(which), was_accepted=times[which] > 0)
        for which, fate in accepted.items()
        if which not in excused or not _is_final(rows.get(which))
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


def _why_lost(fate: str, row: Row | None, *, was_accepted: bool) -> str:
    """Return why the notification counts as lost, or "" if it does not."""
    if row is None:
        return f"{fate}: no row"
    if not _is_final(row):
        return f"{fate}: still {row.status}"
    if row.status != RIGHT[fate]:
        return f"{fate}: {row.status}, expected {RIGHT[fate]}"
    if row.status == "sent" and not was_accepted:
        return f"{fate}: sent and never accepted by the provider"
    if not row.attempts:
        return f"{fate}: {row.status} and never attempted"
    return ""


def recovery_s(
    ended_at: float,
    *,
    held: Collection[str],
    asked_at: Mapping[str, float],
    accepted: Mapping[str, str],
    rows: Mapping[str, Row],
) -> float:
    """Return the seconds from the end of a fault until the system has recovered.

    It has recovered when a notification submitted since is sent and all that was in flight at the
    fault is final. Only recipients with fate `ok` count, since retries take their own time.
    """
    sent_at = {
        which: rows[which].at
        for which, fate in accepted.items()
        if fate == "ok" and which in rows and rows[which].status == "sent"
    }
    next_sent_at = min(
        (at for which, at in sent_at.items() if asked_at[which] >= ended_at), default=inf
    )
    held_final_at = max(
        (sent_at.get(which, inf) for which in held if accepted.get(which) == "ok"), default=ended_at
    )
    return max(next_sent_at, held_final_at) - ended_at


def full_rate_after_s(at: Sequence[float], since: float, *, target: float, span_s: float) -> float:
    """Return the seconds from `since` until the first span with the target rate begins.

    `at` are sorted instants and `target` is per second. Infinity if no span reaches it.
    """
    minimum = target * span_s
    begins = (start for start in at if start >= since)
    full_at = next(
        (each for each in begins if count_within(at, each, each + span_s) >= minimum), inf
    )
    return full_at - since
