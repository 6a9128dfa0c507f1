"""The rates of all providers that have one, looked up by queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from notifier.domain.notification import Channel, QueueKey
from notifier.domain.outcome import Throttled
from notifier.ports.attempts import EndedCall
from notifier.scheduling.rates.provider_rate import ProviderRate


class ProviderRates:
    """Implements ports.attempts.OutcomeListener.

    `providers` names the provider of each channel; `rates` are the rates by provider name.
    """

    def __init__(self, providers: Mapping[Channel, str], rates: Mapping[str, ProviderRate]) -> None:
        self._providers = providers
        self._rates = rates

    def by_queue(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, ProviderRate]:
        """Return the rate of each queue; queues whose provider has none are left out."""
        rates = {queue: self._rate(queue) for queue in queues}
        return {queue: rate for queue, rate in rates.items() if rate is not None}

    def on_outcome(self, call: EndedCall) -> None:
        """Cut the provider's rate if it throttled the call."""
        if call.provider in self._rates and isinstance(call.outcome, Throttled):
            self._rates[call.provider].throttled()

    def _rate(self, queue: QueueKey) -> ProviderRate | None:
        return self._rates.get(self._providers.get(queue.channel, ""))
