"""Seven faults under load; a real Prometheus with the shipped rules must alert."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.prove.load import backlog, steady
from harness.client import QUEUES, until
from harness.figure import Figure, never
from harness.prometheus import ROOT, Prometheus, open_prometheus, scraping
from harness.run import Run
from harness.stack import Stack
from notifier.embedded.process import run_steps_async

RULES = ROOT / "deploy/prometheus/rules/notifier.yml"
EVERY = "15s"
CALM_S, WATCHED_S = 60.0, 120.0
RATE, LATENCY_MS = 100.0, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault injected under steady load, and the alert that must fire."""

    alert: str
    strike: Callable[[Stack, Run], Awaitable[None]]
    fix: Callable[[Stack, Run], Awaitable[None]] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


async def alerts(stack: Stack) -> Sequence[Figure]:
    """Run a Prometheus that scrapes and evaluates every 15 s, as shipped."""
    return [figure for fault in FAULTS for figure in await _watched(stack, fault)]


async def _watched(stack: Stack, fault: Fault) -> Sequence[Figure]:
    name = fault.strike.__name__.strip("_").replace("_", " ")
    async with (
        stack.running(workers=2, **fault.settings) as run,
        _prometheus(stack, run, name) as prometheus,
        _loaded(run),
    ):
        await asyncio.sleep(CALM_S)
        calm = _firing(prometheus)
        struck_at = time.monotonic()
        await fault.strike(stack, run)
        fired_s, pages = await _watch(prometheus, fault.alert, struck_at)
        if fault.fix:
            await fault.fix(stack, run)
        for child in list(run.workers):
            run.kill(child)  # the rest of the backlog does not matter
    return [
        never(f"{name}: alerts before it", len(calm)),
        Figure(name=f"... {fault.alert} after", value=fired_s, unit="s", high=WATCHED_S),
        never(f"... other pages {' '.join(sorted(pages))}".rstrip(), len(pages)),
    ]


async def _watch(prometheus: Prometheus, alert: str, struck_at: float) -> tuple[float, set[str]]:
    """Return the seconds until the alert fired, and the other pages within two minutes."""
    fired_s, pages = float("inf"), set[str]()
    while (passed := time.monotonic() - struck_at) < WATCHED_S:
        firing = _firing(prometheus)
        if alert in firing:
            fired_s = min(fired_s, passed)
        pages |= {each for each, severity in firing.items() if severity == "page"} - {alert}
        await asyncio.sleep(1)
    return fired_s, pages


def _firing(prometheus: Prometheus) -> Mapping[str, str]:
    """Return the firing alerts with their severity."""
    return {
        each["labels"]["alertname"]: each["labels"]["severity"]
        for each in prometheus.get("alerts")["alerts"]
        if each["state"] == "firing"
    }


@asynccontextmanager
async def _prometheus(stack: Stack, run: Run, name: str) -> AsyncIterator[Prometheus]:
    jobs = {"notifier-api": [run.client.api], "notifier-worker": [one.url for one in run.workers]}
    config = {**scraping(jobs, every=EVERY), "rule_files": [str(RULES)]}
    folder = stack.folder / f"prometheus {name}"
    async with open_prometheus(folder, config) as prometheus:
        await until(lambda: _up(prometheus), lambda count: count == 3)
        yield prometheus


async def _up(prometheus: Prometheus) -> float:
    return prometheus.value("sum(up)")


@asynccontextmanager
async def _loaded(run: Run) -> AsyncIterator[None]:
    """Keep steady work on every queue; refused submits are ignored."""

    async def submit() -> None:
        while True:
            try:
                await steady(run.client, QUEUES, rate=RATE, span_s=WATCHED_S)
            except AssertionError:  # 503: Postgres is away
                await asyncio.sleep(0.5)

    await run.client.set_behaviour(latency_ms=LATENCY_MS)
    async with asyncio.TaskGroup() as group:
        load = group.create_task(submit())
        yield
        load.cancel()


async def _a_worker_is_killed(_: Stack, run: Run) -> None:
    run.kill(run.workers[0])


async def _rabbitmq_goes_down(stack: Stack, _: Run) -> None:
    await run_steps_async(stack.rabbitmq.stopping())


async def _rabbitmq_comes_back(stack: Stack, _: Run) -> None:
    await run_steps_async(stack.rabbitmq.starting())


async def _postgres_goes_down(stack: Stack, _: Run) -> None:
    await run_steps_async(stack.postgres.stopping())


async def _postgres_comes_back(stack: Stack, _: Run) -> None:
    await run_steps_async(stack.postgres.starting())


async def _a_provider_answers_5xx(_: Stack, run: Run) -> None:
    await run.client.set_behaviour(channel="sms", error_share=1.0)


async def _a_provider_hangs(_: Stack, run: Run) -> None:
    await run.client.set_behaviour(channel="sms", latency_ms=30_000)


async def _a_rate_is_used_up(_: Stack, run: Run) -> None:
    """At 40/s, of which the steady load takes 33, this backlog lasts over ten minutes."""
    await backlog(run.client, "sms.medium", 5_000)


async def _high_is_flooded(_: Stack, run: Run) -> None:
    """146 consumers at 500 ms per send reach 292/s."""
    await run.client.set_behaviour(latency_ms=500)
    await backlog(run.client, "email.high", 60_000)


FAULTS = (
    Fault(alert="NotifierProcessDied", strike=_a_worker_is_killed),
    Fault(
        alert="NotifierRabbitmqUnreachable", strike=_rabbitmq_goes_down, fix=_rabbitmq_comes_back
    ),
    Fault(
        alert="NotifierPostgresUnreachable", strike=_postgres_goes_down, fix=_postgres_comes_back
    ),
    Fault(alert="NotifierBreakerOpen", strike=_a_provider_answers_5xx),
    Fault(alert="NotifierBreakerOpen", strike=_a_provider_hangs),
    Fault(
        alert="NotifierRateSaturated",
        strike=_a_rate_is_used_up,
        settings={"providers__twilio__rate": 40},
    ),
    Fault(alert="NotifierTargetWaitBurnsFast", strike=_high_is_flooded),
)
