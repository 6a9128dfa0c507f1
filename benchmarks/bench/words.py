"""The texts of docs/performance.md: workloads, figures, and the configuration of each system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TITLES: Mapping[str, str] = {
    "submit_1": "Single submits, 1 API process",
    "submit_2": "Single submits, 2 API processes",
    "submit_batch_1": "Submits in batches of 1,000, 1 API process",
    "submit_batch_2": "Submits in batches of 1,000, 2 API processes",
    "drain": "Draining no-op sends, 2 worker processes",
    "drain_mixed": "Draining over nine queues, 2 worker processes",
    "drain_http": "Draining through HTTP, 2 worker processes",
    "processes": "Draining with 1, 2 and 4 worker processes",
    "past": "Draining beside 10 million sent notifications",
    "send_smtp": "Sending email to smtp-sink, beside the driver alone",
    "send_http": "Sending through HTTP to nginx, beside the driver alone",
    "hang": "Urgent email beside 20 SMS per second that start to take 10 s each",
    "flood": "Urgent email while 40,000 low-priority emails wait",
    "limits": "Limits of the broker and the database",
}
FIGURES: Mapping[str, tuple[str, str]] = {
    "submit_1": ("per_s", "submits per second"),
    "submit_2": ("per_s", "submits per second"),
    "drain": ("per_s", "sends per second"),
    "drain_http": ("per_s", "sends per second"),
    "past": ("per_s", "sends per second"),
    "send_smtp": ("per_s", "sends per second"),
    "send_http": ("per_s", "sends per second"),
    "hang": ("p99_during_ms", "p99, ms"),
    "flood": ("p99_ms", "p99, ms"),
}
"""The plotted figure of each workload, and its unit."""
CURVES: Mapping[str, tuple[str, str]] = {
    "processes": ("worker processes", "sends per second"),
}
"""The axes of the workloads that are plotted as a curve."""


class Share(NamedTuple):
    """A rate of Notifier to compare with the limit of a server."""

    workload: str
    server: str
    figure: str


SHARES = (
    Share("submit_1", "Postgres", "insert_per_s"),
    Share("submit_2", "Postgres", "insert_per_s"),
    Share("submit_batch_1", "Postgres", "batch_insert_per_s"),
    Share("submit_batch_2", "Postgres", "batch_insert_per_s"),
    Share("drain", "RabbitMQ", "consume_per_s"),
)

HEAD = """\
`make bench` measures and writes this page from `benchmarks/results/`, which contains the raw
figures of every round. All systems of a workload are measured in one run, so their ratios come from
one machine and one hour. [The run](#where-and-when) differs between workloads: do not compare rates
across workloads. The load generator, the servers and the measured system share the machine."""

HOW = """\
The systems are measured in turn (A B C D E, A B C D E, ...) on one private RabbitMQ and one private
Postgres with `fsync` on; each round has its own vhost and database. Figures are medians of the
rounds, with the minimum and the maximum. A ratio above 1 means that Notifier did better.

- **Submits**: wrk, one thread, 64 connections, 5 s after a warm-up of 1 s, the same document for
  all. A 202 of Notifier is a committed row, and its API publishes the first of them meanwhile; a
  202 of a peer is a publish that RabbitMQ confirmed, a job that Postgres committed or one that
  Redis accepted. No worker runs. A round with any response other than 202, or with a different
  number of rows, messages or jobs afterwards, does not count. Batches: four callers.
- **Draining**: everything is enqueued before the workers start. Each send writes one byte to one
  file, whose size is read every 20 ms; the rate is the one between the 10th and the 90th percentile
  of the completions. Afterwards all rows of Notifier must be `sent` with one attempt each, and the
  queues and job tables of the peers must hold no unfinished job with their workers stopped. The
  peers on Postgres drain a backlog that is vacuumed and analyzed. Notifier's workers
  keep only a window of the backlog in the broker. Its providers are replaced by the peers' job;
  nothing else is.
- **CPU**: between the same two moments, the time on a CPU of all threads of each process group
  (`/proc/PID/task/*/schedstat`), divided by the sends. `all` leaves out a receiver that stands for
  a provider. RabbitMQ and Postgres run for all systems, also for one that does not use them. The
  CPU of a Postgres backend counts for the statement that it ran last; Notifier has a connection
  per kind of statement. HOT updates are counted over the whole round: those of
  `live` are the claims, since a record deletes the row.
- **Processes**: the same for Notifier alone.
- **10 million sent notifications**: Notifier alone, on two databases of one Postgres. One has
  copies of sent notifications with their attempts, spread over seven days, the partitions of a
  retention of 30 days, and up-to-date statistics; the other has none of these. The drains alternate
  between the two, each after a checkpoint.
- **Through HTTP**: each send is a POST to Notifier's sandbox, one Python process that shares the
  cores and limits all systems. Notifier sends through its own HTTP provider.
- **Beside the driver alone**: Notifier drains with two workers of 64 consumers through its real
  providers. The driver alone is one process without queue, database or record: 64 sessions of
  aiosmtplib that send one composed mail again and again, or one aiohttp session with 64
  connections, on uvloop. Postfix's smtp-sink takes every mail, nginx answers every POST with 201;
  each is one process.
- **Hang, flood**: 50 urgent emails per second, each submitted over HTTP on its own; a wait lasts
  from just before the submit to the start of the job. One worker serves both queues, 64 jobs at
  once. For the hang, 20 SMS per second arrive throughout; for 10 s they take no time, then 10 s
  each: this is the only difference between before and during. For the flood the peers have one
  classic queue with priorities (quorum queues of this RabbitMQ have none); 64 jobs at once sleep
  20 ms each. FastStream limits each queue, not the process.
- **Limits**: one C client, one quorum queue, persistent messages of 200 bytes, at most 1,000
  unconfirmed, then acknowledged in hundreds; `pgbench` with 16 clients and single rows, and with 2
  clients and 500 rows per statement, of 200 bytes, one index."""

REMAINS = """\
A notification costs 114 us of the two cores in the drain: the workers take 59, Postgres 40,
RabbitMQ 9, the API 5. Claim and outcome of each send are committed before the next step. In a
worker about 20 us are Notifier's own code, divided over claim, call, record and their metrics; the
rest are the drivers, the event loop and the job. In Postgres a claim writes no index (a HOT update
of `live`), and the record of an accepted result deletes that row and inserts the attempt."""

CONFIGURATIONS: Mapping[str, str] = {
    "Notifier": (
        "defaults, except log level warning and, per worker process, 512 consumers and as many "
        "connections; over nine queues and through HTTP 128, hang, flood and beside the driver "
        "alone: 64"
    ),
    "Notifier, empty database": "the same on the database without the 10 million",
    "aiosmtplib alone": "one process, 64 sessions without TLS, uvloop",
    "aiohttp alone": "one process, one session of 64 connections without TLS, uvloop",
    "Celery": (
        "quorum queues, `confirm_publish`, `task_acks_late`, `task_reject_on_worker_lost`, no "
        "results, events, gossip, mingle, heartbeat. Draining: prefork with 2 processes, prefetch "
        "128 each; through HTTP 16 processes, prefetch 16 each. Hang and flood: 64 threads, "
        "prefetch 1 each"
    ),
    "Dramatiq": (
        "`confirm_delivery`; it declares queues without a type, which the vhost's default makes "
        "quorum queues; 2 processes of 8 threads, prefetch 256; hang and flood: 1 process of 64 "
        "threads, prefetch 64"
    ),
    "Dramatiq, classic queues": "the same without that vhost default",
    "Taskiq": (
        "taskiq-aio-pika, quorum queues, uvloop, `--ack-type when_executed`, 2 processes of 128 "
        "tasks at once, `qos` 256; hang and flood: 1 process, `qos` 64"
    ),
    "FastStream": (
        "quorum queues, `persist`, acknowledged after the handler, uvloop, 2 processes, prefetch "
        "128; hang and flood: 1 process, prefetch 64"
    ),
    "pgqueuer": (
        "asyncpg, uvloop, durable tables (its default), `pgq run` in 2 processes, `--batch-size` "
        "500, as many jobs at once as are fetched. Keeps three rows per finished job in its log: "
        "queued, picked, successful"
    ),
    "procrastinate": (
        "psycopg, `procrastinate worker` in 2 processes, `--concurrency` 10 and as many "
        "connections each; 8,000 jobs. Keeps the row of a finished job and a row per change of "
        "its status (`--delete-jobs never`, its default)"
    ),
    "oban-py": (
        "psycopg, Python 3.13, `oban start` in 2 processes, a limit of 128 jobs each; 40,000 jobs. "
        "Keeps the row of a finished job until it is pruned after a day (its default)"
    ),
    "graphile-worker": (
        "2 processes, `concurrentJobs` 24, `localQueue.size` 500, `completeJobBatchDelay` and "
        "`failJobBatchDelay` 0, 10 connections each. Keeps nothing of a finished job: deletes it"
    ),
    "BullMQ": (
        "ioredis, private Redis on a Unix socket with an append-only file that is synced at "
        "every write, as the others sync every commit, 2 processes, "
        "`concurrency` 128. Keeps finished jobs in Redis (its default)"
    ),
    "BullMQ, finished jobs removed": "the same with `removeOnComplete: {count: 0}`: keeps nothing",
    "Submit apps of the peers": (
        "FastAPI on uvicorn with uvloop and httptools, pydantic model; Celery and Dramatiq in its "
        "40 threads, the others on the event loop, those on Postgres with a pool of 10 connections "
        "per process. graphile-worker and BullMQ: node:http on node:cluster"
    ),
}
