"""Every query of the dashboards, evaluated by a Prometheus that scrapes a loaded system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from math import inf, isnan
from pathlib import Path

import pytest

from harness.client import QUEUES, Client, Document, open_client, submit_body, until
from harness.prometheus import Prometheus, running_prometheus, scraping
from harness.rabbitmq import RabbitmqNode
from harness.system import System, running_system, urls
from notifier.domain.webhooks import WEBHOOK_QUEUE
from notifier.embedded.postgres import PostgresServer
from tests.conftest import execute
from tests.dashboards import Json, PanelQuery, dashboards, panels, queries

# Failing fates come first: a breaker opens if the last calls of all failed.
FATES = {"down": 1, "cut": 1, "refuse": 2, "flaky-2": 2, "throttle-2": 2, "ok": 20}
SENT = FATES["ok"] * len(QUEUES)
ALL_QUEUES = {*QUEUES, str(WEBHOOK_QUEUE)}
MIN_SAMPLES = 3
PROCESSES = 3  # one API and two workers: sums must be right for more than one process
SETTINGS = {
    "providers.twilio.rate": 200,
    **{
        f"priorities.{priority}.{key}": value
        for priority in ("high", "medium", "low")
        for key, value in {"retry_base_s": 600, "retry_cap_s": 7200}.items()
    },
}


@pytest.fixture(scope="module")
def system(
    e2e_folder: Path,
    postgres_server: PostgresServer,
    migrated_template: str,
    rabbitmq_server: RabbitmqNode,
) -> Iterator[System]:
    execute(postgres_server, f"CREATE DATABASE dashboards TEMPLATE {migrated_template}")
    rabbitmq_server.create_vhost("dashboards")
    server_urls = urls(postgres_server.url("dashboards"), rabbitmq_server.url("dashboards"))
    with running_system(e2e_folder / "dashboards", server_urls | SETTINGS) as system:
        system.start_all()
        system.start_another_worker()
        yield system


@pytest.fixture(scope="module")
def prometheus(system: System) -> Iterator[Prometheus]:
    _, api, *workers = (child.url for child in system.children)
    config = scraping({"api": [api], "worker": workers})
    with running_prometheus(system.folder / "prometheus", config) as prometheus:
        yield prometheus


@pytest.fixture
async def client(system: System) -> AsyncIterator[Client]:
    async with open_client(system.api_url, system.sandbox_url) as client:
        yield client
        await client.set_behaviour()


@pytest.fixture
async def loaded(prometheus: Prometheus, client: Client) -> Prometheus:
    """Prometheus, after it has scraped all processes, and their figures after a load."""
    await wait_for(prometheus, "count(up == 1)", lambda value: value == PROCESSES)
    if not prometheus.value("sum(notifier_accepted_total)"):
        await client.submit(list(load()))
    sent = 'sum(notifier_finished_total{status="sent"})'
    await wait_for(prometheus, sent, lambda value: value >= SENT)
    for metric in ("up", "notifier_provider_responses_total"):
        samples = f"min(count_over_time({metric}[1m]))"
        await wait_for(prometheus, samples, lambda value: value >= MIN_SAMPLES)
    return prometheus


def load() -> Iterator[Document]:
    """Yield submits of every fate on every queue."""
    for fate, count in FATES.items():
        tries = {"max_tries": 1} if fate == "down" else {}
        for queue in QUEUES:
            yield from [submit_body(queue, fate, **tries)] * count


async def wait_for(prometheus: Prometheus, expr: str, condition: Callable[[float], bool]) -> None:
    """Wait until the single value of the expression meets the condition."""

    async def read() -> float:
        return prometheus.value(expr)

    await until(read, condition)


def numbers(prometheus: Prometheus, expr: str) -> list[float]:
    return [sample.value for sample in prometheus.query(expr) if not isnan(sample.value)]


def query_of(uid: str, panel: str, legend: str) -> PanelQuery:
    (match,) = [
        query
        for query in queries()
        if (query.dashboard, query.panel, query.legend) == (uid, panel, legend)
    ]
    return match


async def test_every_query_of_every_panel_has_a_result(loaded: Prometheus) -> None:
    empty = [
        f"{query} with queue {queue}: {expr}"
        for query in queries()
        for queue in (QUEUES if "$queue" in query.expr else ["every"])
        if not numbers(loaded, expr := query.filled(queue=queue))
    ]
    assert empty == []


async def test_every_state_has_a_name_and_every_share_is_at_most_one(loaded: Prometheus) -> None:
    for dashboard in dashboards():
        for panel in panels(dashboard):
            for value in values_of(loaded, panel):
                assert is_shown(panel, value), f"{panel['title']} shows {value}"


def values_of(prometheus: Prometheus, panel: Json) -> list[float]:
    exprs = [PanelQuery("", "", target["expr"], "").filled() for target in panel.get("targets", ())]
    return [value for expr in exprs for value in numbers(prometheus, expr)]


def is_shown(panel: Json, value: float) -> bool:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "state-timeline":
        return str(int(value)) in defaults["mappings"][0]["options"]
    maximum: float = defaults.get("max", inf)
    return 0 <= value <= maximum


async def test_a_variable_offers_every_queue_and_every_provider(loaded: Prometheus) -> None:
    offered = {
        variable["name"]: set(
            loaded.label_values(
                variable["name"], of=variable["definition"].partition("(")[2].partition(",")[0]
            )
        )
        for dashboard in dashboards()
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }
    assert offered == {"queue": ALL_QUEUES, "provider": {"smtp", "twilio", "fcm", "webhook"}}


async def test_panels_by_queue_and_by_process_have_all_series(
    loaded: Prometheus,
) -> None:
    limits = query_of("notifier-overview", "What limits each queue", "{{queue}}").filled()
    assert {sample.labels["queue"] for sample in loaded.query(limits)} == ALL_QUEUES
    memory = query_of("notifier-workers", "Memory", "{{job}} {{instance}}").filled()
    assert sorted(sample.labels["job"] for sample in loaded.query(memory)) == [
        "api",
        "worker",
        "worker",
    ]
    busy = query_of("notifier-workers", "Consumers busy", "{{job}} {{instance}}").filled()
    assert [sample.labels["job"] for sample in loaded.query(busy)] == ["worker", "worker"]


async def test_totals_count_both_workers_and_the_deployment_once(loaded: Prometheus) -> None:
    alive = query_of("notifier-workers", "Workers alive", "alive").filled()
    await wait_for(loaded, alive, lambda value: value == PROCESSES - 1)
    consumers = query_of("notifier-queue", "Consumers", "assigned").filled(queue="email.low")
    assert loaded.value(consumers) >= PROCESSES - 1


async def test_a_pause_is_shown_as_the_limit_of_the_queue(
    loaded: Prometheus, client: Client
) -> None:
    limit = query_of("notifier-queue", "What limits it", "{{queue}}").filled(queue="push.low")
    await client.hold("pause", "queue", "push.low")
    await wait_for(loaded, limit, lambda value: value == state("notifier-queue", "pause"))
    await client.hold("resume", "queue", "push.low")
    await wait_for(loaded, limit, lambda value: value == state("notifier-queue", "need"))


async def test_an_open_breaker_is_shown_though_only_workers_see_it(
    loaded: Prometheus, client: Client
) -> None:
    await client.set_behaviour(channel="push", error_share=1.0, status=503)
    await client.submit([submit_body("push.high") for _ in range(60)])
    shown = query_of("notifier-providers", "Breaker", "{{provider}}")
    open_ = state("notifier-providers", "open")
    await wait_for(loaded, shown.filled(provider="fcm"), lambda value: value == open_)
    assert loaded.value(shown.filled(provider="smtp")) == state("notifier-providers", "closed")


def state(uid: str, name: str) -> int:
    """Return the number of a state on a dashboard."""
    (number,) = [
        int(number)
        for dashboard in dashboards()
        for panel in panels(dashboard)
        if dashboard["uid"] == uid and panel["type"] == "state-timeline"
        for number, shown in panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()
        if shown["text"] == name
    ]
    return number
