"""The environment variables that configure a peer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

PRIORITIES = {"high": 9, "medium": 5, "low": 0}
ONE_QUEUE = "notifications"
CONNECTIONS = 10
"""Postgres connections of one process of a peer."""
QUEUES = ("email.high", "email.medium", "email.low", "sms.medium")


def broker_url() -> str:
    return os.environ["BENCH_BROKER_URL"]


def database_url() -> str:
    return os.environ["BENCH_DATABASE_URL"]


def log_file() -> str:
    return os.environ["BENCH_LOG"]


def sandbox_url() -> str:
    return os.environ["BENCH_SANDBOX_URL"]


def concurrency() -> int:
    """Concurrent jobs of one worker process."""
    return int(os.environ.get("BENCH_CONCURRENCY", "64"))


def prefetch() -> int:
    """Messages that one worker process may hold."""
    return int(os.environ.get("BENCH_PREFETCH", "128"))


def has_priorities() -> bool:
    """Whether there is one queue with priorities instead of a queue per priority."""
    return os.environ.get("BENCH_QUEUES") == "priorities"


def queue_names() -> tuple[str, ...]:
    """The queues that are declared and consumed."""
    if has_priorities():
        return (ONE_QUEUE,)
    return tuple(os.environ.get("BENCH_QUEUE_NAMES", " ".join(QUEUES)).split())


def queue_of(notification: Mapping[str, Any]) -> str:
    if has_priorities():
        return ONE_QUEUE
    return f"{notification['channel']}.{notification['priority']}"


def priority_of(notification: Mapping[str, Any]) -> int | None:
    """RabbitMQ's priority, higher is more urgent; None without queue priorities."""
    return PRIORITIES[notification["priority"]] if has_priorities() else None
