"""Queue: one queue, whether it keeps its promise, what flows, what the provider says."""

from __future__ import annotations

from typing import Final

from grafana.colours import (
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
    """The page of the queue that the variable names."""
    return dashboard(
        "queue",
        "One queue: what limits it, whether it keeps the wait it promises, and how its calls end.",
        [_promise(), _flow(), _calls()],
        [variable("queue", "Queue", "label_values(notifier_target_wait_seconds, queue)")],
    )


def _promise() -> Section:
    second = [Place(_wait(), 12), Place(_late(), 6), Place(_oldest(), 6)]
    return Section("Does it keep its promise?", [[Place(_limit(), 24, 4)], second])


def _flow() -> Section:
    return Section(
        "What flows?",
        [[Place(_in_and_out(), 8), Place(_waiting(), 8), Place(_consumers(), 8)]],
    )


def _calls() -> Section:
    first = [Place(_outcomes(), 12), Place(_lengths(), 12)]
    second = [Place(_end_to_end(), 8), Place(_retries(), 8), Place(_taken_up_again(), 8)]
    return Section("How do its calls end?", [first, second])


def _limit() -> Json:
    return state_timeline(
        "What limits it",
        "need: it has all it can use. consumers: all are busy, start workers or find the slow "
        "provider. rate: used up. hang, breaker: the provider, nothing to do but look at it. "
        "pause: notifier resume. no worker: start one.",
        Query(
            worst("notifier_limited_by", "reason", LIMIT_RANKS, by="queue", where=MINE), "{{queue}}"
        ),
        states=LIMIT_STATES,
    )


def _wait() -> Json:
    return timeseries(
        "Wait, from due to claimed",
        "How long messages waited for a consumer, against what the queue promises (dashed). Above "
        "it: read what limits it.",
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
        "The share of messages claimed later than the queue promises. Above a few percent for "
        "minutes: read what limits it; if that is consumers, start workers.",
        Query(
            share(
                per_second("notifier_claimed_late_total", where=MINE),
                per_second("notifier_queue_wait_seconds_count", where=MINE),
            ),
            "late",
        ),
        unit="percentunit",
        colours={"late": "red"},
        most=1,
    )


def _oldest() -> Json:
    return timeseries(
        "Oldest wait",
        "How long the oldest message waits now, against the promise (dashed). A straight climb: "
        "nothing is taken at all; read what limits it.",
        Query(seen("notifier_oldest_wait_seconds", where=MINE), "oldest"),
        PROMISED,
        unit="s",
        colours={"oldest": "orange"} | PROMISE,
        dashed=["promised"],
    )


def _in_and_out() -> Json:
    return timeseries(
        "In and out",
        "Accepted for this queue, and how they ended. Sent below accepted for minutes: the queue "
        "falls behind, read what limits it. expired: it waited longer than its ttl.",
        Query(per_second("notifier_accepted_total", where=MINE), "accepted"),
        *(
            Query(per_second("notifier_finished_total", where=f'{MINE}, status="{status}"'), status)
            for status in ("sent", "failed", "expired")
        ),
        unit="cps",
        colours=FLOW,
    )


def _waiting() -> Json:
    return timeseries(
        "What waits",
        "Due rows in Postgres (counted to a ceiling) and messages ready in RabbitMQ. Much due and "
        "little ready is by design: RabbitMQ holds about a second of work.",
        Query(seen("notifier_due", where=MINE), "due in Postgres"),
        Query(seen("notifier_ready", where=MINE), "ready in RabbitMQ"),
        unit="short",
        colours=WAITING,
        stacked=True,
    )


def _consumers() -> Json:
    return timeseries(
        "Consumers",
        "Consumers of all workers at this queue, and those with a call under way. All busy while "
        "it waits: the calls are slow or there are too few. One a worker and none busy: paused or "
        "its breaker is open.",
        Query(total("notifier_consumers", where=MINE), "assigned"),
        Query(total("notifier_consumers_busy", where=MINE), "busy"),
        unit="short",
        colours={"assigned": "light-blue", "busy": "blue"},
    )


def _outcomes() -> Json:
    return timeseries(
        "Calls by outcome",
        "What the provider answered. Much unavailable or throttled: see Providers. Much refused: "
        "the addresses are bad, ask whoever submits them.",
        Query(per_second("notifier_attempts_total", by="outcome", where=MINE), "{{outcome}}"),
        unit="reqps",
        colours=OUTCOMES,
        stacked=True,
    )


def _lengths() -> Json:
    return timeseries(
        "Length of a call",
        "How long this queue's calls take, by provider. A rise here slows the queue though nothing "
        "of Notifier is slow: ask the provider.",
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
        "How long notifications took, retries and send_at included. High while the wait is low: "
        "it is the retries, look at the outcomes.",
        Query(quantile(0.99, "notifier_end_to_end_seconds", where=MINE), "p99"),
        Query(quantile(0.5, "notifier_end_to_end_seconds", where=MINE), "p50"),
        unit="s",
        colours=QUANTILES,
        logarithmic=True,
    )


def _retries() -> Json:
    return timeseries(
        "Retries planned, by cause",
        "throttled costs no try and cuts the provider's rate by itself; unavailable and ambiguous "
        "spend tries. Many for long: see Providers, or pause it so that no try is spent.",
        Query(counted("notifier_retries_total", by="reason", where=MINE), "{{reason}}"),
        unit="short",
        colours=OUTCOMES,
        stacked=True,
        bars=True,
    )


def _taken_up_again() -> Json:
    lost, died = (f'{MINE}, reason="{reason}"' for reason in ("message_lost", "process_died"))
    return timeseries(
        "Taken up again",
        "Lost in RabbitMQ: often somebody purged the queue, nothing to do. Its process died: find "
        "out why it died. Given back unspent: a stop or a move, normal in small numbers.",
        Query(counted("notifier_rescues_total", where=lost), "lost in RabbitMQ"),
        Query(counted("notifier_rescues_total", where=died), "its process died"),
        Query(counted("notifier_released_total", where=MINE), "given back unspent"),
        unit="short",
        colours=TROUBLE,
        stacked=True,
        bars=True,
    )
