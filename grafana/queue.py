"""The dashboard Queue: the wait, the flow and the provider calls of one queue."""

from __future__ import annotations

from typing import Final

from grafana.colours import (
    FINAL_STATUSES,
    FLOW,
    LIMIT_RANKS,
    LIMIT_STATES,
    OUTCOMES,
    PROMISE,
    QUANTILES,
    TROUBLE,
    WAITING,
)
from grafana.layout import Section, dashboard, variable
from grafana.panels import Json, Place, Query, state_timeline, timeseries
from grafana.promql import counted, per_second, quantile, seen, share, total, worst

MINE: Final = 'queue="$queue"'
PROMISED: Final = Query(seen("notifier_target_wait_seconds", where=MINE), "promised")


def queue() -> Json:
    """Return the dashboard of one queue; a variable chooses the queue."""
    return dashboard(
        "queue",
        "One queue: what limits it, whether it keeps the wait it promises, and how its calls end.",
        [_promise(), _flow(), _calls()],
        [variable("queue", "Queue", "label_values(notifier_target_wait_seconds, queue)")],
    )


def _promise() -> Section:
    second = [Place(_wait(), 12), Place(_late(), 6), Place(_oldest(), 6)]
    return Section("Does it keep its promised wait?", [[Place(_limit(), 24, 4)], second])


def _flow() -> Section:
    return Section(
        "How much goes in and out?",
        [[Place(_in_and_out(), 8), Place(_waiting(), 8), Place(_consumers(), 8)]],
    )


def _calls() -> Section:
    first = [Place(_outcomes(), 12), Place(_durations(), 12)]
    second = [Place(_end_to_end(), 8), Place(_retries(), 8), Place(_recovered(), 8)]
    return Section("How do its calls end?", [first, second])


def _limit() -> Json:
    return state_timeline(
        "What limits it",
        "need: it has all it can use. consumers: all are busy; start workers or find the slow "
        "provider. rate: the rate is used up. hang, breaker: look at the provider. pause: run "
        "notifier resume. no worker: start one.",
        Query(
            worst("notifier_limited_by", "reason", LIMIT_RANKS, by="queue", where=MINE), "{{queue}}"
        ),
        states=LIMIT_STATES,
    )


def _wait() -> Json:
    return timeseries(
        "Wait, from due to called",
        "How long notifications waited for a consumer, and the promised wait (dashed). If it is "
        "higher: look at What limits it.",
        Query(quantile(0.99, "notifier_queue_wait_seconds", where=MINE), "p99"),
        Query(quantile(0.5, "notifier_queue_wait_seconds", where=MINE), "p50"),
        PROMISED,
        unit="s",
        colours=QUANTILES | PROMISE,
        dashed=["promised"],
        logarithmic=True,
    )


def _late() -> Json:
    return timeseries(
        "Late",
        "The share of notifications that were called later than promised. Above a few percent "
        "for minutes: look at What limits it; if that is consumers, start workers.",
        Query(
            share(
                per_second("notifier_claimed_late_total", where=MINE),
                per_second("notifier_queue_wait_seconds_count", where=MINE),
            ),
            "late",
        ),
        unit="percentunit",
        colours={"late": "red"},
        maximum=1,
    )


def _oldest() -> Json:
    return timeseries(
        "Oldest wait",
        "How long the oldest notification that waits has been due, a retry from its own due time, "
        "and the promised wait (dashed). A steady climb: no notification is claimed; "
        "look at What limits it.",
        Query(seen("notifier_oldest_due_seconds", where=MINE), "oldest"),
        PROMISED,
        unit="s",
        colours={"oldest": "orange"} | PROMISE,
        dashed=["promised"],
    )


def _in_and_out() -> Json:
    return timeseries(
        "In and out",
        "Notifications accepted, and those that ended, by status. Sent below accepted for "
        "minutes: the queue falls behind; look at What limits it. expired: it waited longer than "
        "its ttl.",
        Query(per_second("notifier_accepted_total", where=MINE), "accepted"),
        *(
            Query(per_second("notifier_finished_total", where=f'{MINE}, status="{status}"'), status)
            for status in FINAL_STATUSES
        ),
        unit="cps",
        colours=FLOW,
    )


def _waiting() -> Json:
    return timeseries(
        "Waiting",
        "Due rows in Postgres (counted up to 1,000) and notifications ready in RabbitMQ. Many "
        "due and few ready are normal: RabbitMQ holds about one second of work.",
        Query(seen("notifier_due", where=MINE), "due in Postgres"),
        Query(seen("notifier_ready", where=MINE), "ready in RabbitMQ"),
        unit="short",
        colours=WAITING,
        stacked=True,
    )


def _consumers() -> Json:
    return timeseries(
        "Consumers",
        "Consumers of all workers assigned to this queue, and those in a call. All busy while it "
        "waits: the calls are slow, or there are too few. One per worker and none busy: it is "
        "paused, or its breaker is open.",
        Query(total("notifier_consumers", where=MINE), "assigned"),
        Query(total("notifier_consumers_busy", where=MINE), "busy"),
        unit="short",
        colours={"assigned": "light-blue", "busy": "blue"},
    )


def _outcomes() -> Json:
    return timeseries(
        "Calls by outcome",
        "The outcomes of the calls. Much unavailable or throttled: see the dashboard Providers. "
        "Much refused: the addresses are bad; ask the sender.",
        Query(per_second("notifier_attempts_total", by="outcome", where=MINE), "{{outcome}}"),
        unit="reqps",
        colours=OUTCOMES,
        stacked=True,
    )


def _durations() -> Json:
    return timeseries(
        "Duration of a call",
        "How long the calls of this queue take, by provider. If it rises, the provider slows the "
        "queue: ask the provider.",
        Query(
            quantile(0.99, "notifier_attempt_seconds", by="provider", where=MINE),
            "{{provider}} p99",
        ),
        Query(
            quantile(0.5, "notifier_attempt_seconds", by="provider", where=MINE),
            "{{provider}} p50",
        ),
        unit="s",
    )


def _end_to_end() -> Json:
    return timeseries(
        "From accepted to sent",
        "How long notifications took, including retries and send_at. High while the wait is low: "
        "the retries take long; look at the outcomes.",
        Query(quantile(0.99, "notifier_end_to_end_seconds", where=MINE), "p99"),
        Query(quantile(0.5, "notifier_end_to_end_seconds", where=MINE), "p50"),
        unit="s",
        colours=QUANTILES,
        logarithmic=True,
    )


def _retries() -> Json:
    return timeseries(
        "Retries planned, by cause",
        "throttled spends no try, and Notifier cuts the provider's rate. unavailable and "
        "ambiguous spend a try. Many for a long time: see Providers, or pause the queue to save "
        "tries.",
        Query(counted("notifier_retries_total", by="reason", where=MINE), "{{reason}}"),
        unit="short",
        colours=OUTCOMES,
        stacked=True,
        bars=True,
    )


def _recovered() -> Json:
    lost, died = (f'{MINE}, reason="{reason}"' for reason in ("message_lost", "process_died"))
    return timeseries(
        "Recovered and given back",
        "Lost in RabbitMQ: for example after a purge of the queue; nothing to do. Its process "
        "died: find out why. Given back without an attempt: normal in small numbers, at a stop or "
        "a move of consumers.",
        Query(counted("notifier_rescues_total", where=lost), "lost in RabbitMQ"),
        Query(counted("notifier_rescues_total", where=died), "its process died"),
        Query(counted("notifier_released_total", where=MINE), "given back"),
        unit="short",
        colours=TROUBLE,
        stacked=True,
        bars=True,
    )
