"""Trials of monitoring: Prometheus finds every target, and an alert reaches its receiver."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import aiohttp

from deploy.rehearsal.stack import Stack
from harness.client import until
from harness.figure import Figure, never

TARGETS = 5  # a job each: api, worker, rabbitmq, alertmanager, prometheus itself
RULES = ("notifier:wait_over_promise:max", "notifier:consumers_busy:share")


async def targets(stack: Stack) -> Sequence[Figure]:
    """Every target is up, and every recording rule has a value."""
    health = await until(lambda: _targets(stack), _all_up)
    without_value = [rule for rule in RULES if not await _value(stack, rule)]
    return [
        Figure(name="targets of Prometheus that are up", value=len(health), low=TARGETS),
        never("autoscaling rules without a value", len(without_value)),
    ]


async def alert(stack: Stack) -> Sequence[Figure]:
    """Send an alert of each severity to Alertmanager, and wait for it in the sandbox's log."""
    figures = list[Figure]()
    for severity, max_s in (("page", 30), ("ticket", 60)):
        started_at = time.monotonic()
        await _fire(stack, severity)
        await until(partial(_received, stack, severity), bool)
        delivery_s = time.monotonic() - started_at
        figures.append(Figure(name=f"a {severity} arrives", value=delivery_s, unit="s", high=max_s))
    return figures


async def workers_up(stack: Stack) -> int:
    """Return how many workers Prometheus scrapes successfully."""
    health_of = await _targets(stack)
    return sum(health == "up" for (job, _), health in health_of.items() if job == "notifier-worker")


async def _targets(stack: Stack) -> Mapping[tuple[str, str], str]:
    response = await stack.client.read(f"{stack.url('prometheus')}/api/v1/targets?state=active")
    return {
        (target["labels"]["job"], target["labels"]["instance"]): target["health"]
        for target in response["data"]["activeTargets"]
    }


def _all_up(health_of: Mapping[tuple[str, str], str]) -> bool:
    return len(health_of) >= TARGETS and set(health_of.values()) == {"up"}


async def _value(stack: Stack, rule: str) -> Sequence[Any]:
    response = await stack.client.read(f"{stack.url('prometheus')}/api/v1/query?query={rule}")
    result: Sequence[Any] = response["data"]["result"]
    return result


async def _fire(stack: Stack, severity: str) -> None:
    labels = {"alertname": "Rehearsal", "severity": severity}
    url = f"{stack.url('alertmanager')}/api/v2/alerts"
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(url, json=[{"labels": labels}]),
    ):
        pass


async def _received(stack: Stack, receiver: str) -> list[Any]:
    alerts = await stack.client.read(f"{stack.url('sandbox')}/alerts")
    return [
        alert
        for alert in alerts
        if alert["receiver"] == receiver and alert["labels"]["alertname"] == "Rehearsal"
    ]
