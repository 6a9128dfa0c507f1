"""The report of a load run: responses, rate, latencies and final statuses."""

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
    """Quantiles of durations in seconds; None if there were no values."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class QueueReport(msgspec.Struct, frozen=True):
    """The results of one queue. `end_to_end_s` covers the notifications with status `sent`."""

    queue: str
    accepted: int
    statuses: dict[str, int]
    end_to_end_s: Quantiles


class Report(msgspec.Struct, frozen=True):
    """The whole report, as `--json` prints it.

    `responses` counts notifications by HTTP status. `max_delay_s` is how late the latest submit
    was. `is_complete`: all were accepted, and final if the run waited for them.
    """

    responses: dict[str, int]
    duration_s: float
    rate_per_s: float
    max_delay_s: float
    submit_s: Quantiles
    queues: list[QueueReport]
    is_complete: bool


def make_report(submitted: Submitted, ends: Mapping[str, End] | None) -> Report:
    """Build the report. `ends` has the last state by id; None if the run did not wait."""
    accepted = submitted.responses[ACCEPTED]
    duration_s = submitted.duration_s
    return Report(
        responses=dict(sorted(submitted.responses.items())),
        duration_s=round(duration_s, 3),
        rate_per_s=round(accepted / duration_s, 1) if duration_s else 0.0,
        max_delay_s=round(submitted.max_delay_s, 3),
        submit_s=quantiles(submitted.latencies),
        queues=[] if ends is None else _by_queue(submitted.queue_of, ends),
        is_complete=accepted == submitted.responses.total()
        and (ends is None or _all_final(submitted.queue_of, ends)),
    )


def _all_final(queue_of: Mapping[str, str], ends: Mapping[str, End]) -> bool:
    return all(id_ in ends and ends[id_].is_final for id_ in queue_of)


def _by_queue(queue_of: Mapping[str, str], ends: Mapping[str, End]) -> list[QueueReport]:
    ends_by_queue: dict[str, list[End]] = {}
    for id_, queue in queue_of.items():
        ends_by_queue.setdefault(queue, []).append(ends.get(id_, End("unknown", 0.0)))
    return [
        QueueReport(
            queue=queue,
            accepted=len(of_queue),
            statuses=dict(sorted(Counter(end.status for end in of_queue).items())),
            end_to_end_s=quantiles([end.age_s for end in of_queue if end.status == Status.SENT]),
        )
        for queue, of_queue in sorted(ends_by_queue.items())
    ]


def quantiles(values: Sequence[float]) -> Quantiles:
    """Return nearest-rank quantiles: each is one of the values."""
    ordered = sorted(values)
    if not ordered:
        return Quantiles(None, None, None, None)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 4)

    return Quantiles(at(0.5), at(0.9), at(0.99), at(1.0))


def print_report(report: Report) -> None:
    """Print the report as tables."""
    submit = report.submit_s
    print_table(
        ["submit p50 s", "p90 s", "p99 s", "max s", "accepted/s", "duration s", "max delay s"],
        [
            (
                submit.p50,
                submit.p90,
                submit.p99,
                submit.max,
                report.rate_per_s,
                report.duration_s,
                report.max_delay_s,
            )
        ],
    )
    print()
    print_table(["response", "notifications"], list(report.responses.items()))
    if report.queues:
        print()
        _print_queues(report.queues)


def _print_queues(queues: Sequence[QueueReport]) -> None:
    statuses = sorted({status for queue in queues for status in queue.statuses})
    print_table(
        ["queue", "accepted", *statuses, "sent p50 s", "p90 s", "p99 s", "max s"],
        [
            (
                queue.queue,
                queue.accepted,
                *(queue.statuses.get(status, 0) for status in statuses),
                queue.end_to_end_s.p50,
                queue.end_to_end_s.p90,
                queue.end_to_end_s.p99,
                queue.end_to_end_s.max,
            )
            for queue in queues
        ],
    )
