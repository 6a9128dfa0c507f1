"""Sender workloads: drains through Notifier's real providers, beside their drivers alone."""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.bench import receivers
from benchmarks.bench.curve import Figures
from benchmarks.bench.draining import SMS, drained, measured
from benchmarks.bench.place import ROOT, Place, Servers
from benchmarks.bench.systems import NOTIFIER, Manning, a_notification

AT_ONCE = 64
"""Concurrent sends of one process."""


def smtp(servers: Servers, count: int) -> Figures:
    """Emails from one queue to smtp-sink, by two workers."""
    with servers.place() as place:
        manning = Manning(concurrency=AT_ONCE, smtp_port=receivers.smtp_sink(place))
        return drained(place, NOTIFIER, manning, [a_notification()] * count)


def http(servers: Servers, count: int) -> Figures:
    """Text messages from one queue to nginx, by two workers."""
    with servers.place() as place:
        url = f"{receivers.nginx(place)}/{SMS}"
        manning = Manning(concurrency=AT_ONCE, queues=("sms.medium",), sandbox_url=url)
        return drained(place, NOTIFIER, manning, [a_notification("sms.medium")] * count)


def bare_smtp(servers: Servers, count: int) -> Figures:
    """The same emails by aiosmtplib alone, in one process."""
    with servers.place() as place:
        return _bare(place, "smtp", f"smtp://127.0.0.1:{receivers.smtp_sink(place)}", count)


def bare_http(servers: Servers, count: int) -> Figures:
    """The same text messages by aiohttp alone, in one process."""
    with servers.place() as place:
        return _bare(place, "http", f"{receivers.nginx(place)}/{SMS}", count)


def _bare(place: Place, kind: str, url: str, count: int) -> Figures:
    place.log.touch()
    words = [kind, url, str(count), str(AT_ONCE)]
    command = [sys.executable, "-m", "benchmarks.bench.bare_sender", *words]
    place.children.start("worker", command, {"PYTHONPATH": str(ROOT), "BENCH_LOG": str(place.log)})
    return measured(replace(place, servers={}), count)  # it uses neither Postgres nor RabbitMQ
