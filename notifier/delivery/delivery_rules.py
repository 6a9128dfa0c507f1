"""The settings of sending: each channel's provider, each priority's retry policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from notifier.domain.outcome import Accepted
from notifier.domain.retry import (
    AmbiguityRule,
    Decision,
    Fail,
    Retry,
    RetryPolicy,
    Settle,
    Spent,
    decide,
    decide_after_death,
)
from notifier.ports.provider import CopiesFiles, ParksRecipients

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.domain.notification import Channel, Claimed, Priority, QueueKey
    from notifier.domain.outcome import Outcome
    from notifier.domain.retry import RetryDelays
    from notifier.ports.provider import Provider

NO_AMBIGUITY_RULE: Final = AmbiguityRule()
SETTLED: Final = Settle()
NO_PROVIDER: Final = "none"
"""The provider name that is recorded for a channel without a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderBinding:
    """A channel's provider, and the channel's rule for ambiguous sends.

    `longest_send_s`: the provider ends each send within this time by itself. The worker's limit
    is then at least as long. 0 if it says nothing. `retries` None: those of the priority.
    """

    provider: Provider
    ambiguity: AmbiguityRule
    longest_send_s: float = 0.0
    retries: RetryDelays | None = None


class DeliveryRules:
    """Looks up a queue's provider and decides what follows from an outcome."""

    def __init__(
        self,
        *,
        bindings: Mapping[Channel, ProviderBinding],
        policies: Mapping[Priority, RetryPolicy],
    ) -> None:
        self._bindings = bindings
        self._policies = policies
        self._provider_names = {
            channel: binding.provider.name for channel, binding in bindings.items()
        }
        self._parking = {
            channel: binding.provider
            for channel, binding in bindings.items()
            if isinstance(binding.provider, ParksRecipients)
        }
        self._own_retries = {
            channel: binding.retries
            for channel, binding in bindings.items()
            if binding.retries is not None
        }

    def provider(self, queue: QueueKey) -> Provider | None:
        """Return the provider that sends this queue's notifications; None if it has none."""
        binding = self._bindings.get(queue.channel)
        return binding.provider if binding else None

    def parking_s(self, claimed: Claimed) -> float | None:
        """For how many seconds a row is parked because its provider may not be called for it now.

        None: it may be sent.
        """
        provider = self._parking.get(claimed.queue.channel)
        return None if provider is None else provider.parking_s(claimed.recipient)

    def longest_send_s(self, queue: QueueKey) -> float:
        """How long the queue's provider may take for a send by its own limits, 0 without one."""
        binding = self._bindings.get(queue.channel)
        return binding.longest_send_s if binding else 0.0

    def file_copies(self, queue: QueueKey) -> int:
        """Return how many copies of its files a call of the queue's provider holds."""
        binding = self._bindings.get(queue.channel)
        if binding is None:
            return 0
        provider = binding.provider
        return provider.file_copies if isinstance(provider, CopiesFiles) else 0

    def provider_name(self, queue: QueueKey) -> str:
        """Return the name of the queue's provider, `none` if it has none."""
        return self._provider_names.get(queue.channel, NO_PROVIDER)

    def decide(self, claimed: Claimed, outcome: Outcome, draw: float) -> Decision:
        """Decide what follows from an outcome; see domain.retry.decide."""
        if isinstance(outcome, Accepted):  # nearly all: nothing else is needed
            return SETTLED
        return decide(
            outcome,
            spent=Spent(
                tries=claimed.tries,
                deferrals=claimed.deferrals,
                unspent=claimed.unspent,
                ambiguous=claimed.ambiguous,
            ),
            max_tries=claimed.max_tries,
            policy=self._retries(claimed.queue),
            ambiguity=self._ambiguity(claimed.queue),
            draw=draw,
        )

    def decide_after_death(self, queue: QueueKey, deaths: int) -> Retry | Fail:
        """Decide what follows from a worker's death; see domain.retry.decide_after_death."""
        return decide_after_death(deaths, self._ambiguity(queue).on_ambiguous)

    def _retries(self, queue: QueueKey) -> RetryDelays:
        return self._own_retries.get(queue.channel) or self._policies[queue.priority]

    def _ambiguity(self, queue: QueueKey) -> AmbiguityRule:
        binding = self._bindings.get(queue.channel)
        return binding.ambiguity if binding else NO_AMBIGUITY_RULE
