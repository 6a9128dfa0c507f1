"""Celery on RabbitMQ.

Quorum queues and `confirm_publish` as its RabbitMQ page advises; late acknowledgement and
`task_reject_on_worker_lost`, so that a crash loses nothing; no results, no events, no gossip,
mingle or heartbeat, as its optimizing page advises. `worker_prefetch_multiplier` is 64 for no-op
jobs and 1 for jobs that take time, as that page advises. `broker_pool_limit` is one connection
for each of FastAPI's 40 threads. Priorities need a classic queue.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from benchmarks.peers import place
from benchmarks.peers.job import perform
from benchmarks.peers.submit import threaded_app

QUORUM = {"x-queue-type": "quorum"}
PRIORITISED = {"x-max-priority": 10}

celery = Celery("peer", broker=place.broker_url())
celery.conf.update(
    broker_connection_retry_on_startup=True,
    broker_pool_limit=40,
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_default_queue_type="classic" if place.has_priorities() else "quorum",
    task_default_queue=place.queue_names()[0],
    task_queues=[
        Queue(
            name,
            Exchange("peer", type="direct"),
            routing_key=name,
            queue_arguments=PRIORITISED if place.has_priorities() else QUORUM,
        )
        for name in place.queue_names()
    ],
    worker_prefetch_multiplier=max(1, place.prefetch() // place.concurrency()),
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)


@celery.task
def send(notification: dict[str, Any]) -> None:
    perform(notification)


def enqueue(notification: dict[str, Any]) -> str:
    result = send.apply_async(
        (notification,),
        queue=place.queue_of(notification),
        priority=place.priority_of(notification),
    )
    return str(result.id)


app = threaded_app(enqueue)
