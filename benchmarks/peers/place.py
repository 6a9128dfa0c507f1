"""Where a peer runs: what the measurer tells it in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

PRIORITIES = {"high": 9, "medium": 5, "low": 0}
ONE_QUEUE = "notifications"
QUEUES = ("email.high", "email.medium", "email.low", "sms.medium")


def broker_url() -> str:
    return os.environ["BENCH_BROKER_URL"]


def log_file() -> str:
    return os.environ["BENCH_LOG"]


def sandbox_url() -> str:
    return os.environ["BENCH_SANDBOX_URL"]


def concurrency() -> int:
    """How many jobs one worker process carries out at once."""
    return int(os.environ.get("BENCH_CONCURRENCY", "64"))


def prefetch() -> int:
    """How many messages one worker process may hold."""
    return int(os.environ.get("BENCH_PREFETCH", "128"))


def has_priorities() -> bool:
    """Whether all goes into one queue with priorities, rather than into a queue for each."""
    return os.environ.get("BENCH_QUEUES") == "priorities"


def queue_names() -> tuple[str, ...]:
    """The queues that are declared and worked on."""
    if has_priorities():
        return (ONE_QUEUE,)
    return tuple(os.environ.get("BENCH_QUEUE_NAMES", " ".join(QUEUES)).split())


def queue_of(notification: Mapping[str, Any]) -> str:
    if has_priorities():
        return ONE_QUEUE
    return f"{notification['channel']}.{notification['priority']}"


def priority_of(notification: Mapping[str, Any]) -> int | None:
    """The higher the more urgent, as RabbitMQ counts; None where queues have no priorities."""
    return PRIORITIES[notification["priority"]] if has_priorities() else None
