"""All measurements of promised figures by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.prove.alerting import alerts
from benchmarks.prove.api_faults import api_killed, direct_publish_lost
from benchmarks.prove.attachments import attachments
from benchmarks.prove.breakers import (
    one_failure,
    provider_fails,
    provider_fails_slowly,
    wrong_credentials,
)
from benchmarks.prove.campaign import campaign
from benchmarks.prove.channels import channels
from benchmarks.prove.events import events
from benchmarks.prove.freezing import worker_frozen
from benchmarks.prove.growth import growth
from benchmarks.prove.hangs import provider_hangs
from benchmarks.prove.history import history
from benchmarks.prove.latency import flood, idle_latency
from benchmarks.prove.million import million
from benchmarks.prove.one_worker import (
    consumer_rate,
    exactly_once,
    movement,
    starvation,
    steady_moves,
)
from benchmarks.prove.outages import postgres_restarted, rabbitmq_wiped, slow_backlog
from benchmarks.prove.pauses import pause
from benchmarks.prove.rates import rate_50, rate_500
from benchmarks.prove.redrive import redrive
from benchmarks.prove.skew import skewed_load
from benchmarks.prove.tenants import many_tenants, tenants
from benchmarks.prove.webhooks import webhooks
from benchmarks.prove.worker_faults import rolling_restart, worker_killed
from harness.figure import Figure
from harness.stack import Stack

Measurement = Callable[[Stack], Awaitable[Sequence[Figure]]]

ONE_WORKER: Sequence[Measurement] = (
    exactly_once,
    movement,
    steady_moves,
    starvation,
    consumer_rate,
)
MANY_WORKERS: Sequence[Measurement] = (
    worker_killed,
    worker_frozen,
    rolling_restart,
    api_killed,
    direct_publish_lost,
    rabbitmq_wiped,
    postgres_restarted,
    slow_backlog,
    rate_50,
    rate_500,
    provider_hangs,
    provider_fails,
    provider_fails_slowly,
    one_failure,
    wrong_credentials,
    pause,
    campaign,
    redrive,
    events,
    webhooks,
)
WATCHED: Sequence[Measurement] = (alerts,)
SPEED: Sequence[Measurement] = (idle_latency, flood, skewed_load, tenants, many_tenants)
SIZE: Sequence[Measurement] = (growth, million, history, channels, attachments)
LINES: Mapping[str, Measurement] = {
    line.__name__: line for line in (*ONE_WORKER, *MANY_WORKERS, *WATCHED, *SPEED, *SIZE)
}
