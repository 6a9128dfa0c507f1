from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry

from notifier.adapters.telemetry.metrics import Metrics
from notifier.cli.demo.client import read_figures
from notifier.cli.demo.plan import FATES, SIZES, Order, plan_orders
from notifier.cli.demo.verdict import compare, strangers
from notifier.domain.notification import Channel, QueueKey, Status
from notifier.sandbox.fates import fate_of_address, fate_of_phone, fate_of_token

READ = {"email": fate_of_address, "sms": fate_of_phone, "push": fate_of_token}


def as_planned() -> tuple[dict[str, Order], dict[str, str], dict[str, int]]:
    orders = {str(number): order for number, order in enumerate(plan_orders())}
    statuses = {id_: order.fate.status for id_, order in orders.items()}
    return orders, statuses, {id_: order.fate.calls for id_, order in orders.items()}


def test_two_thousand_notifications_go_to_nine_queues() -> None:
    orders = plan_orders()
    assert len(orders) == 2000
    assert Counter(order.queue for order in orders) == SIZES
    assert len(SIZES) == 9


def test_every_queue_meets_every_fate() -> None:
    met = {(order.queue, order.fate.name) for order in plan_orders()}
    assert met == {(queue, fate.name) for queue in SIZES for fate in FATES}


def test_the_sandbox_reads_the_fate_that_was_planned() -> None:
    for order in plan_orders():
        channel = order.queue.partition(".")[0]
        assert READ[channel](order.recipient) == order.fate.name


def test_the_demo_agrees_when_all_went_as_planned() -> None:
    orders, statuses, calls = as_planned()
    lines = compare(orders, statuses, calls)
    assert sum(line.wrong for line in lines) == 0
    assert sum(line.submitted for line in lines) == 2000
    assert sum(line.calls for line in lines) == sum(calls.values())
    assert strangers(orders, calls) == 0


def test_one_call_too_many_is_noticed_even_if_another_one_is_missing() -> None:
    orders, statuses, calls = as_planned()
    first, second = [id_ for id_, order in orders.items() if order.fate.name == "ok"][:2]
    calls[first] += 1
    del calls[second]
    assert sum(line.wrong for line in compare(orders, statuses, calls)) == 2


def test_a_notification_the_api_does_not_know_is_noticed() -> None:
    orders, statuses, calls = as_planned()
    del statuses["7"]
    assert sum(line.wrong for line in compare(orders, statuses, calls)) == 1


def test_a_call_for_somebody_else_is_noticed() -> None:
    orders, _, calls = as_planned()
    assert strangers(orders, {**calls, "": 2}) == 2


def test_the_figures_are_those_of_the_metrics() -> None:
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
