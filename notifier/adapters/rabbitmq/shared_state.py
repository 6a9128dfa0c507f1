"""What the connections and channels of one broker share."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate
from notifier.adapters.rabbitmq.connection_state import ConnectionState
from notifier.adapters.rabbitmq.declaration import Declarations
from notifier.adapters.rabbitmq.foreign import ForeignPointers
from notifier.domain.deployment_id import DeploymentId
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Backoff
from notifier.ports.observer import BrokerObserver

FIRST_RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 2.0


class SharedState:
    """The queues, the estimates and the connection state of one broker.

    `random` is for the jitter of the back-offs.
    """

    def __init__(
        self,
        queues: Sequence[QueueKey],
        random: Random,
        observer: BrokerObserver,
        deployment: DeploymentId,
    ) -> None:
        self.queues = queues
        self.batch_sizes = BatchSizeEstimate()
        self.connection_state = ConnectionState(("publish", "consume"))
        self.deployment = deployment
        self.foreign = ForeignPointers(observer, random)
        self.declarations = Declarations(queues, observer)
        self._random = random

    def new_backoff(self) -> Backoff:
        """Return a back-off of 0.1 s that doubles to 2 s, with jitter."""
        return Backoff(FIRST_RETRY_S, MAX_RETRY_S, random=self._random)
