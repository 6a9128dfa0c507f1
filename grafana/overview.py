"""The dashboard Overview: deliveries, waits, and where the consumers are."""

from __future__ import annotations

from typing import Final

from grafana.colours import (
    FAILURES,
    FINAL_STATUSES,
    FLOW,
    LIMIT_RANKS,
    LIMIT_STATES,
    PRIORITIES,
    WAITING,
)
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
    """Return the dashboard to open first."""
    description = "Whether notifications arrive, how soon, how many wait, and where consumers are."
    return dashboard("overview", description, [_deliveries(), _waits(), _work()])


def _deliveries() -> Section:
    first = [Place(_notifications(), 12), Place(_errors(), 6), Place(_alerts(), 6)]
    return Section(
        "Are notifications delivered?", [first, [Place(_limits(), 16), Place(_failures(), 8)]]
    )


def _waits() -> Section:
    first = [Place(_end_to_end(0.99), 12), Place(_end_to_end(0.5), 12)]
    return Section("Are they in time?", [first, [Place(_waiting(), 12), Place(_oldest(), 12)]])


def _work() -> Section:
    lines = [[Place(_consumers(), 12), Place(_utilization(), 6), Place(_moves(), 6)]]
    return Section("Where do consumers work?", lines)


def _notifications() -> Json:
    return timeseries(
        "Notifications",
        "Notifications accepted by the API, and those that ended, by status. Sent far below "
        "accepted for minutes: something holds a queue back; look at What limits each queue.",
        Query(per_second("notifier_accepted_total"), "accepted"),
        *(
            Query(per_second(FINISHED, where=f'status="{status}"'), status)
            for status in FINAL_STATUSES
        ),
        unit="cps",
        colours=FLOW,
    )


def _errors() -> Json:
    return timeseries(
        "Errors",
        "The share of notifications that failed permanently, and of calls that the provider did "
        "not accept. If it rises: the dashboard Providers shows which provider; the command "
        "notifier providers shows why.",
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
        "Alerts that fire or are pending. Begin with the one that fires longest; its page in "
        "docs/runbook says what to do. Normally there are none.",
    )


def _limits() -> Json:
    return state_timeline(
        "What limits each queue",
        "Why a queue has no more consumers. need: it has all it can use. consumers: start workers "
        "or find the slow provider. breaker, hang, rate: see Providers. pause: notifier pauses "
        "says why. no worker: start one.",
        Query(worst("notifier_limited_by", "reason", LIMIT_RANKS, by="queue"), "{{queue}}"),
        states=LIMIT_STATES,
        links=True,
    )


def _failures() -> Json:
    return timeseries(
        "Permanent failures, by reason",
        "Notifications that failed permanently; see notifier list --status failed. exhausted: the "
        "provider was unavailable for too long. poison: three workers died while they sent it, "
        "or Postgres rejected its claim; find out why. render: its template cannot be rendered.",
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
        "How long notifications took, including retries and send_at, and the wait that each "
        "priority promises (dashed). Higher, and all consumers busy: start workers. Only one "
        "channel: its provider is slow.",
        Query(quantile_by_priority(part, END_TO_END), "{{priority}}"),
        Query(promised_by_priority(), "{{priority}} promised"),
        unit="s",
        colours=PRIORITIES | {f"{name} promised": colour for name, colour in PRIORITIES.items()},
        dashed=["promised"],
        logarithmic=True,
    )


def _waiting() -> Json:
    return timeseries(
        "Waiting",
        "Due rows in Postgres (counted up to 1,000 per queue) and notifications ready in "
        "RabbitMQ, of all queues. Growing for minutes: more is accepted than sent; look at What "
        "limits each queue.",
        Query(f"sum({seen('notifier_due', by='queue')})", "due in Postgres"),
        Query(f"sum({seen('notifier_ready', by='queue')})", "ready in RabbitMQ"),
        unit="short",
        colours=WAITING,
        stacked=True,
    )


def _oldest() -> Json:
    return timeseries(
        "Oldest wait, by queue",
        "How long the oldest notification that waits has been due; a retry counts from its own "
        "due time. One queue: open its dashboard and look at What limits it. All queues: "
        "start workers, or look at Postgres and RabbitMQ.",
        Query(seen("notifier_oldest_due_seconds", by="queue"), "{{queue}}"),
        unit="s",
        links=True,
    )


def _consumers() -> Json:
    return timeseries(
        "Consumers by queue",
        "The consumers of all workers, by queue. They move to the queue that needs them. If the "
        "total drops, a worker ended: see the dashboard Workers.",
        Query(total("notifier_consumers", by="queue"), "{{queue}}"),
        unit="short",
        stacked=True,
        links=True,
    )


def _utilization() -> Json:
    return timeseries(
        "Consumers busy",
        "The share of consumers in a call. Near 100 % while queues wait: raise --consumers or "
        "start workers. Low while queues wait: look at What limits each queue.",
        Query(share(total("notifier_consumers_busy"), total("notifier_consumers")), "busy"),
        unit="percentunit",
        colours={"busy": "blue"},
        maximum=1,
    )


def _moves() -> Json:
    return timeseries(
        "Consumer moves",
        "Consumers moved to each queue. Many moves while the load changes are normal. Many moves "
        "under a steady load are not: report them with the log events consumers_moved.",
        Query(counted("notifier_consumer_moves_total", by="queue"), "{{queue}}"),
        unit="short",
        stacked=True,
        bars=True,
    )
