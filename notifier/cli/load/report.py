"""The end of a load run: what was submitted, how fast, and what became of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from notifier.cli.load.follow import End
from notifier.cli.load.submit import ACCEPTED, Submitted
from notifier.cli.show import print_table
from notifier.domain.notification import Status


class Quantiles(msgspec.Struct, frozen=True):
    """Of seconds; None if there were none."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class QueueReport(msgspec.Struct, frozen=True):
    """What became of the notifications of one queue; `end_to_end_s` of those that were sent."""

    queue: str
    accepted: int
    statuses: dict[str, int]
    end_to_end_s: Quantiles


class Report(msgspec.Struct, frozen=True):
    """All of it, as `--json` prints it."""

    answers: dict[str, int]
    took_s: float
    rate_per_s: float
    behind_schedule_s: float
    submit_s: Quantiles
    queues: list[QueueReport]
    is_complete: bool


def make_report(submitted: Submitted, ends: Mapping[str, End] | None) -> Report:
    """`ends` is None when nobody waited for them."""
    accepted = submitted.answers[ACCEPTED]
    return Report(
        answers=dict(sorted(submitted.answers.items())),
        took_s=round(submitted.took_s, 3),
        rate_per_s=round(accepted / submitted.took_s, 1) if submitted.took_s else 0.0,
        behind_schedule_s=round(submitted.latest_s, 3),
        submit_s=quantiles(submitted.latencies),
        queues=[] if ends is None else _by_queue(submitted.queue_of, ends),
        is_complete=accepted == submitted.answers.total()
        and (ends is None or _all_final(submitted.queue_of, ends)),
    )


def _all_final(queue_of: Mapping[str, str], ends: Mapping[str, End]) -> bool:
    return all(one in ends and ends[one].is_final for one in queue_of)


def _by_queue(queue_of: Mapping[str, str], ends: Mapping[str, End]) -> list[QueueReport]:
    by_queue: dict[str, list[End]] = {}
    for one, queue in queue_of.items():
        by_queue.setdefault(queue, []).append(ends.get(one, End("unknown", 0.0)))
    return [
        QueueReport(
            queue=queue,
            accepted=len(found),
            statuses=dict(sorted(Counter(end.status for end in found).items())),
            end_to_end_s=quantiles([end.age_s for end in found if end.status == Status.SENT]),
        )
        for queue, found in sorted(by_queue.items())
    ]


def quantiles(values: Sequence[float]) -> Quantiles:
    """The nearest-rank quantiles: each is a value that occurred."""
    ordered = sorted(values)
    if not ordered:
        return Quantiles(None, None, None, None)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 4)

    return Quantiles(at(0.5), at(0.9), at(0.99), at(1.0))


def print_report(report: Report) -> None:
    """Three tables for a person."""
    spread = report.submit_s
    print_table(
        ["submit p50 s", "p90 s", "p99 s", "max s", "accepted/s", "took s", "behind s"],
        [
            (
                spread.p50,
                spread.p90,
                spread.p99,
                spread.max,
                report.rate_per_s,
                report.took_s,
                report.behind_schedule_s,
            )
        ],
    )
    print()
    print_table(["answer", "notifications"], list(report.answers.items()))
    if report.queues:
        print()
        _print_queues(report.queues)


def _print_queues(queues: Sequence[QueueReport]) -> None:
    statuses = sorted({status for one in queues for status in one.statuses})
    print_table(
        ["queue", "accepted", *statuses, "sent p50 s", "p90 s", "p99 s", "max s"],
        [
            (
                one.queue,
                one.accepted,
                *(one.statuses.get(status, 0) for status in statuses),
                one.end_to_end_s.p50,
                one.end_to_end_s.p90,
                one.end_to_end_s.p99,
                one.end_to_end_s.max,
            )
            for one in queues
        ],
    )
