"""The estimate of pointers per message."""

from __future__ import annotations

import pytest

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate
from notifier.domain.notification import Channel, Priority, QueueKey

QUEUE = QueueKey(Channel("email"), Priority.LOW)
OTHER = QueueKey(Channel("sms"), Priority.LOW)


def test_the_mean_follows_the_last_messages() -> None:
    batch_sizes = BatchSizeEstimate()
    assert (batch_sizes.mean(QUEUE), batch_sizes.pointers(QUEUE, 7)) == (1.0, 7)
    batch_sizes.record(QUEUE, 16)
    assert batch_sizes.mean(QUEUE) == 16
    batch_sizes.record(QUEUE, 8)
    assert batch_sizes.mean(QUEUE) == 12
    for _ in range(500):
        batch_sizes.record(QUEUE, 16)
    assert batch_sizes.mean(QUEUE) == pytest.approx(16, rel=0.01)
    assert batch_sizes.pointers(QUEUE, 10) == 160
    assert batch_sizes.mean(OTHER) == 1.0
    for _ in range(500):
        batch_sizes.record(QUEUE, 1)
    assert batch_sizes.mean(QUEUE) == pytest.approx(1, rel=0.05)
