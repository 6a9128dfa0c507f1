"""What is promised of those who watch: Prometheus finds everything, an alert reaches somebody."""

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
    """Every target up, every rule of ours with a value."""
    found = await until(lambda: _targets(stack), _all_up)
    silent = [rule for rule in RULES if not await _value(stack, rule)]
    return [
        Figure(name="targets of Prometheus that are up", value=len(found), low=TARGETS),
        never("rules to scale by without a value", len(silent)),
    ]


async def alert(stack: Stack) -> Sequence[Figure]:
    """One of each severity, from Alertmanager's door to the sandbox's log."""
    figures = list[Figure]()
    for severity, most in (("page", 30), ("ticket", 60)):
        began = time.monotonic()
        await _fire(stack, severity)
        await until(partial(_arrived, stack, severity), bool)
        took_s = time.monotonic() - began
        figures.append(Figure(name=f"a {severity} arrives", value=took_s, unit="s", high=most))
    return figures


async def workers_up(stack: Stack) -> int:
    """How many workers Prometheus has found and reached."""
    found = await _targets(stack)
    return sum(health == "up" for (job, _), health in found.items() if job == "notifier-worker")


async def _targets(stack: Stack) -> Mapping[tuple[str, str], str]:
    answer = await stack.client.read(f"{stack.url('prometheus')}/api/v1/targets?state=active")
    return {
        (target["labels"]["job"], target["labels"]["instance"]): target["health"]
        for target in answer["data"]["activeTargets"]
    }


def _all_up(found: Mapping[tuple[str, str], str]) -> bool:
    return len(found) >= TARGETS and set(found.values()) == {"up"}


async def _value(stack: Stack, rule: str) -> Sequence[Any]:
    answer = await stack.client.read(f"{stack.url('prometheus')}/api/v1/query?query={rule}")
    result: Sequence[Any] = answer["data"]["result"]
    return result


async def _fire(stack: Stack, severity: str) -> None:
    labels = {"alertname": "Rehearsal", "severity": severity}
    url = f"{stack.url('alertmanager')}/api/v2/alerts"
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(url, json=[{"labels": labels}]),
    ):
        pass


async def _arrived(stack: Stack, receiver: str) -> list[Any]:
    kept = await stack.client.read(f"{stack.url('sandbox')}/alerts")
    return [
        one
        for one in kept
        if one["receiver"] == receiver and one["labels"]["alertname"] == "Rehearsal"
    ]
