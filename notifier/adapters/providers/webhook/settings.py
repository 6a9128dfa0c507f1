"""The settings of the provider of the channel `webhook`, which no table of the settings names."""

from __future__ import annotations

from notifier.adapters.providers.settings import ProviderSettings
from notifier.domain.notification import WEBHOOK_CHANNEL
from notifier.domain.retry import ListedDelays

MARGIN_S = 1.0


class WebhookSettings(
    ProviderSettings, frozen=True, kw_only=True, tag_field="type", tag=WEBHOOK_CHANNEL
):
    """`[webhooks]`, as far as it concerns the calls."""

    retry_s: tuple[float, ...]
    disable_after_s: float
    allow_http: bool = False
    allow_private: tuple[str, ...] = ()
    per_endpoint: int = 4

    @property
    def longest_send_s(self) -> float:
        """How long a call may take, with the reading of the webhook before it."""
        return self.timeout_s + MARGIN_S

    @property
    def retries(self) -> ListedDelays:
        """The delays between the tries of a call."""
        return ListedDelays(self.retry_s)
