"""Overview: does it get through, is it in time, and who works where."""

from __future__ import annotations

from typing import Final

from grafana.colours import FAILURES, FLOW, LIMIT_RANKS, LIMIT_STATES, PRIORITIES, WAITING
from grafana.layout import Section, dashboard
from grafana.panels import Json, Place, Query, alerts, state_timeline, timeseries
from grafana.promql import (
    counted,
    per_second,
    promised_by_priority,
    quantile_by_priority,
    seen,
    share,
    total,
    worst,
)

END_TO_END: Final = "notifier_end_to_end_seconds"
FINISHED: Final = "notifier_finished_total"
ATTEMPTS: Final = "notifier_attempts_total"


def overview() -> Json:
    """The first page for the person on call."""
    says = "Whether notifications get through, how soon, what waits, and who works where."
    return dashboard("overview", says, [_through(), _in_time(), _at_work()])


def _through() -> Section:
    first = [Place(_notifications(), 12), Place(_errors(), 6), Place(_alerts(), 6)]
    return Section("Does it get through?", [first, [Place(_limits(), 16), Place(_failures(), 8)]])


def _in_time() -> Section:
    first = [Place(_end_to_end(0.99), 12), Place(_end_to_end(0.5), 12)]
    return Section("Is it in time?", [first, [Place(_waiting(), 12), Place(_oldest(), 12)]])


def _at_work() -> Section:
    lines = [[Place(_consumers(), 12), Place(_utilization(), 6), Place(_moves(), 6)]]
    return Section("Who works where?", lines)


def _notifications() -> Json:
    return timeseries(
        "Notifications",
        "Accepted by the API, and how they ended. Sent far below accepted for minutes: "
        "something holds a queue, look at What limits each queue.",
        Query(per_second("notifier_accepted_total"), "accepted"),
        *(
            Query(per_second(FINISHED, where=f'status="{status}"'), status)
            for status in ("sent", "failed", "expired")
        ),
        unit="cps",
        colours=FLOW,
    )


def _errors() -> Json:
    return timeseries(
        "Errors",
        "The share of notifications that failed for good, and of calls that the provider did not "
        "accept. If it rises: the Providers dashboard says whose, notifier providers says why.",
        Query(
            share(per_second(FINISHED, where='status="failed"'), per_second(FINISHED)),
            "notifications failed",
        ),
        Query(
            share(per_second(ATTEMPTS, where='outcome!="accepted"'), per_second(ATTEMPTS)),
            "calls not accepted",
        ),
        unit="percentunit",
        colours={"notifications failed": "red", "calls not accepted": "orange"},
    )


def _alerts() -> Json:
    return alerts(
        "Alerts",
        "What fires or is about to. Begin with what fires longest; "
        "its text says what to do. None is as it should be.",
    )


def _limits() -> Json:
    return state_timeline(
        "What limits each queue",
        "What keeps a queue from more consumers; need: it has all it can use. consumers: start "
        "workers or find the slow provider. breaker, hang, rate: see Providers. pause: GET "
        "/v1/pauses says why. no worker: start one.",
        Query(worst("notifier_limited_by", "reason", LIMIT_RANKS, by="queue"), "{{queue}}"),
        states=LIMIT_STATES,
        links=True,
    )


def _failures() -> Json:
    return timeseries(
        "Failed for good, by reason",
        "Notifications given up in the last moments. GET /v1/failures lists them. exhausted: the "
        "provider was away for too long; poison: its worker died three times, find out why.",
        Query(counted("notifier_failures_total", by="reason"), "{{reason}}"),
        unit="short",
        colours=FAILURES,
        stacked=True,
        bars=True,
    )


def _end_to_end(part: float) -> Json:
    quantile = f"p{part * 100:g}"
    return timeseries(
        f"From accepted to sent, {quantile}",
        "How long notifications took, retries and send_at included, against the wait each priority "
        "promises (dashed). Above it with consumers busy: start workers; only one channel: its "
        "provider is slow.",
        Query(quantile_by_priority(part, END_TO_END), "{{priority}}"),
        Query(promised_by_priority(), "{{priority}} promised"),
        unit="s",
        colours=PRIORITIES | {f"{name} promised": colour for name, colour in PRIORITIES.items()},
        dashed=["promised"],
        logarithmic=True,
    )


def _waiting() -> Json:
    return timeseries(
        "What waits",
        "Due rows in Postgres (each queue counted to a ceiling) and messages ready in RabbitMQ, "
        "all queues. Growing for minutes: more is accepted than sent; see what limits the queues.",
        Query(f"sum({seen('notifier_due', by='queue')})", "due in Postgres"),
        Query(f"sum({seen('notifier_ready', by='queue')})", "ready in RabbitMQ"),
        unit="short",
        colours=WAITING,
        stacked=True,
    )


def _oldest() -> Json:
    return timeseries(
        "Oldest wait, by queue",
        "How long the oldest message of each queue waits. One queue alone: open its dashboard and "
        "read what limits it; all of them: start workers, or look at Postgres and RabbitMQ.",
        Query(seen("notifier_oldest_wait_seconds", by="queue"), "{{queue}}"),
        unit="s",
        links=True,
    )


def _consumers() -> Json:
    return timeseries(
        "Consumers by queue",
        "Where the consumers of all workers stand; they move to the queue that needs them. A step "
        "down of the whole is a worker that ended: see Workers.",
        Query(total("notifier_consumers", by="queue"), "{{queue}}"),
        unit="short",
        stacked=True,
        links=True,
    )


def _utilization() -> Json:
    return timeseries(
        "Consumers at work",
        "The share of consumers with a call under way. Near 100 % while queues wait: raise "
        "--consumers or start workers. Low while queues wait: see what limits them.",
        Query(share(total("notifier_consumers_busy"), total("notifier_consumers")), "busy"),
        unit="percentunit",
        colours={"busy": "blue"},
        most=1,
    )


def _moves() -> Json:
    return timeseries(
        "Moves",
        "Consumers that came to a queue. Many while the load changes is normal; many under a "
        "steady load is not: report it with the log lines consumers_moved.",
        Query(counted("notifier_consumer_moves_total", by="queue"), "{{queue}}"),
        unit="short",
        stacked=True,
        bars=True,
    )
