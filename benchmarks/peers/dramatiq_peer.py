"""Dramatiq on RabbitMQ.

`confirm_delivery` as its reference advises. It declares queues without a type, which the vhost's
default makes quorum queues; with priorities they are always classic. Its messages are persistent
and acknowledged after the job. `dramatiq_queue_prefetch` is set beside the worker. Priorities are
its `max_priority` and `broker_priority`.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers import place
from benchmarks.peers.job import perform
from benchmarks.peers.submit import threaded_app

broker = RabbitmqBroker(
    url=place.broker_url(),
    confirm_delivery=True,
    max_priority=10 if place.has_priorities() else None,
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=place.queue_names()[0])
def send(notification: dict[str, Any]) -> None:
    perform(notification)


# Workers consume declared queues; an actor declares only its own queue.
for name in place.queue_names():
    broker.declare_queue(name)


def enqueue(notification: dict[str, Any]) -> str:
    priority = place.priority_of(notification)
    options = {} if priority is None else {"broker_priority": priority}
    message = send.message_with_options(args=(notification,), **options)
    sent = broker.enqueue(message.copy(queue_name=place.queue_of(notification)))
    return str(sent.message_id)


app = threaded_app(enqueue)
