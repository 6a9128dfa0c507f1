from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry

from harness.demo.comparison import compare, unknown_calls
from harness.demo.figures import read_figures
from harness.demo.plan import FATES, SIZES, PlannedNotification, plan_notifications
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.fates import fate_of_address, fate_of_phone, fate_of_token
from notifier.domain.notification import Channel, QueueKey, Status

FATE_OF = {"email": fate_of_address, "sms": fate_of_phone, "push": fate_of_token}


def as_planned() -> tuple[dict[str, PlannedNotification], dict[str, str], dict[str, int]]:
    planned = {
        str(number): notification for number, notification in enumerate(plan_notifications())
    }
    statuses = {id_: notification.fate.status for id_, notification in planned.items()}
    return (
        planned,
        statuses,
        {id_: notification.fate.calls for id_, notification in planned.items()},
    )


def test_two_thousand_notifications_go_to_nine_queues() -> None:
    planned = plan_notifications()
    assert len(planned) == 2000
    assert Counter(notification.queue for notification in planned) == SIZES
    assert len(SIZES) == 9


def test_every_queue_has_every_fate() -> None:
    pairs = {(notification.queue, notification.fate.name) for notification in plan_notifications()}
    assert pairs == {(queue, fate.name) for queue in SIZES for fate in FATES}


def test_the_sandbox_reads_the_planned_fate_of_every_recipient() -> None:
    for notification in plan_notifications():
        channel = notification.queue.partition(".")[0]
        assert FATE_OF[channel](notification.recipient) == notification.fate.name


def test_all_totals_agree_when_everything_went_as_planned() -> None:
    planned, statuses, calls = as_planned()
    totals = compare(planned, statuses, calls)
    assert sum(total.wrong for total in totals) == 0
    assert sum(total.submitted for total in totals) == 2000
    assert sum(total.calls for total in totals) == sum(calls.values())
    assert unknown_calls(planned, calls) == 0


def test_an_extra_call_is_wrong_even_if_another_call_is_missing() -> None:
    planned, statuses, calls = as_planned()
    first, second = [
        id_ for id_, notification in planned.items() if notification.fate.name == "ok"
    ][:2]
    calls[first] += 1
    del calls[second]
    assert sum(total.wrong for total in compare(planned, statuses, calls)) == 2


def test_a_notification_that_the_api_does_not_list_is_wrong() -> None:
    planned, statuses, calls = as_planned()
    del statuses["7"]
    assert sum(total.wrong for total in compare(planned, statuses, calls)) == 1


def test_calls_for_other_notifications_are_counted() -> None:
    planned, _, calls = as_planned()
    assert unknown_calls(planned, {**calls, "": 2}) == 2


def test_the_figures_are_read_from_the_metrics() -> None:
    queue = QueueKey.parse("email.low")
    providers = {Channel("email"): ["smtp"]}
    metrics = Metrics([queue], providers, version="0", registry=CollectorRegistry())
    metrics.finished(queue, Status.SENT, 0.1)
    metrics.finished(queue, Status.FAILED, 0.1)
    metrics.finished(queue, Status.EXPIRED, 0.1)
    metrics.retried(queue, "throttled")
    metrics.retried(queue, "unavailable")
    figures = read_figures(metrics.render()[0].decode())
    name = str(queue)
    assert (figures.sent[name], figures.failed[name], figures.retries[name]) == (1, 1, 2)
    assert figures.finished == 3
