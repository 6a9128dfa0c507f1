"""Every query of the dashboards, asked of a real Prometheus that scrapes a loaded system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from math import inf, isnan
from pathlib import Path

import pytest

from harness.client import QUEUES, Client, Document, open_client, submit_body, until
from harness.prometheus import Prometheus, running_prometheus, scraping
from harness.rabbitmq import RabbitmqNode
from harness.system import System, running_system, urls
from notifier.embedded.postgres import PostgresServer
from tests.conftest import execute
from tests.dashboards import Asked, Json, dashboards, panels, queries

# What is not sent comes first: a breaker opens where the last calls of all failed.
FATES = {"down": 1, "cut": 1, "refuse": 2, "flaky-2": 2, "throttle-2": 2, "ok": 20}
SENT = FATES["ok"] * len(QUEUES)
SAMPLES_LEAST = 3
PROCESSES = 3  # API, and two workers: what is summed must be right for more than one
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
    at = urls(postgres_server.url("dashboards"), rabbitmq_server.url("dashboards"))
    with running_system(e2e_folder / "dashboards", at | SETTINGS) as system:
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
    """Once all processes are scraped, the load is sent, and what came of it is scraped, too."""
    await comes(prometheus, "count(up == 1)", lambda found: found == PROCESSES)
    if not prometheus.value("sum(notifier_accepted_total)"):
        await client.submit(list(the_load()))
    sent = 'sum(notifier_finished_total{status="sent"})'
    await comes(prometheus, sent, lambda found: found >= SENT)
    for metric in ("up", "notifier_provider_responses_total"):
        samples = f"min(count_over_time({metric}[1m]))"
        await comes(prometheus, samples, lambda found: found >= SAMPLES_LEAST)
    return prometheus


def the_load() -> Iterator[Document]:
    """Every fate on every queue."""
    for fate, count in FATES.items():
        tries = {"max_tries": 1} if fate == "down" else {}
        for queue in QUEUES:
            yield from [submit_body(queue, fate, **tries)] * count


async def comes(prometheus: Prometheus, expr: str, is_so: Callable[[float], bool]) -> None:
    """Wait until the one value of the expression is so."""

    async def look() -> float:
        return prometheus.value(expr)

    await until(look, is_so)


def numbers(prometheus: Prometheus, expr: str) -> list[float]:
    return [one.value for one in prometheus.query(expr) if not isnan(one.value)]


def asked_of(uid: str, panel: str, legend: str) -> Asked:
    (found,) = [
        each
        for each in queries()
        if (each.dashboard, each.panel, each.legend) == (uid, panel, legend)
    ]
    return found


async def test_every_query_of_every_panel_has_an_answer(loaded: Prometheus) -> None:
    empty = [
        f"{asked} with queue {queue}: {expr}"
        for asked in queries()
        for queue in (QUEUES if "$queue" in asked.expr else ["every"])
        if not numbers(loaded, expr := asked.filled(queue=queue))
    ]
    assert empty == []


async def test_a_state_always_has_its_name_and_a_share_is_one(loaded: Prometheus) -> None:
    for dashboard in dashboards():
        for panel in panels(dashboard):
            for value in values_of(loaded, panel):
                assert is_shown(panel, value), f"{panel['title']} shows {value}"


def values_of(prometheus: Prometheus, panel: Json) -> list[float]:
    exprs = [Asked("", "", target["expr"], "").filled() for target in panel.get("targets", ())]
    return [value for expr in exprs for value in numbers(prometheus, expr)]


def is_shown(panel: Json, value: float) -> bool:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "state-timeline":
        return str(int(value)) in defaults["mappings"][0]["options"]
    most: float = defaults.get("max", inf)
    return 0 <= value <= most


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
    assert offered == {"queue": set(QUEUES), "provider": {"smtp", "twilio", "fcm"}}


async def test_every_series_of_a_panel_by_queue_and_by_process_is_there(
    loaded: Prometheus,
) -> None:
    limits = asked_of("notifier-overview", "What limits each queue", "{{queue}}").filled()
    assert {one.labels["queue"] for one in loaded.query(limits)} == set(QUEUES)
    memory = asked_of("notifier-workers", "Memory", "{{job}} {{instance}}").filled()
    assert sorted(one.labels["job"] for one in loaded.query(memory)) == ["api", "worker", "worker"]
    busy = asked_of("notifier-workers", "Consumers busy", "{{job}} {{instance}}").filled()
    assert [one.labels["job"] for one in loaded.query(busy)] == ["worker", "worker"]


async def test_totals_count_both_workers_and_the_deployment_once(loaded: Prometheus) -> None:
    alive = asked_of("notifier-workers", "Workers alive", "alive").filled()
    await comes(loaded, alive, lambda found: found == PROCESSES - 1)
    consumers = asked_of("notifier-queue", "Consumers", "assigned").filled(queue="email.low")
    assert loaded.value(consumers) >= PROCESSES - 1


async def test_a_pause_shows_as_what_limits_the_queue(loaded: Prometheus, client: Client) -> None:
    limit = asked_of("notifier-queue", "What limits it", "{{queue}}").filled(queue="push.low")
    await client.hold("pause", "queue", "push.low")
    await comes(loaded, limit, lambda found: found == state("notifier-queue", "pause"))
    await client.hold("resume", "queue", "push.low")
    await comes(loaded, limit, lambda found: found == state("notifier-queue", "need"))


async def test_an_open_breaker_shows_though_only_workers_see_it(
    loaded: Prometheus, client: Client
) -> None:
    await client.set_behaviour(channel="push", error_share=1.0, status=503)
    await client.submit([submit_body("push.high") for _ in range(60)])
    shown = asked_of("notifier-providers", "Breaker", "{{provider}}")
    open_ = state("notifier-providers", "open")
    await comes(loaded, shown.filled(provider="fcm"), lambda found: found == open_)
    assert loaded.value(shown.filled(provider="smtp")) == state("notifier-providers", "closed")


def state(uid: str, name: str) -> int:
    """The number that stands for a state on a dashboard."""
    (number,) = [
        int(number)
        for dashboard in dashboards()
        for panel in panels(dashboard)
        if dashboard["uid"] == uid and panel["type"] == "state-timeline"
        for number, shown in panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()
        if shown["text"] == name
    ]
    return number
