"""A log of the alerts that Alertmanager's webhook sends, for rehearsals of the alerting."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from notifier.sandbox.errors import InvalidRequest

MAX_ALERTS: Final = 1000
"""The log keeps this many alerts and drops the oldest."""


class Alert(msgspec.Struct, frozen=True, gc=False):
    """One received alert. `at` is the time of arrival, `receiver` the route that sent it."""

    at: datetime
    receiver: str
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class WebhookAlert(msgspec.Struct, kw_only=True):
    """One alert within a webhook's body."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}


class Webhook(msgspec.Struct, kw_only=True):
    """The body of Alertmanager's webhook (version 4), without the fields that are not kept."""

    receiver: str
    alerts: list[WebhookAlert]


class AlertLog:
    """A bounded in-memory log of alerts in the order of their arrival."""

    def __init__(self) -> None:
        self._alerts: deque[Alert] = deque(maxlen=MAX_ALERTS)

    def add(self, body: bytes) -> None:
        """Logs every alert of a webhook's body. Raises InvalidRequest and then logs none."""
        webhook, at = _decode(body), datetime.now(UTC)
        self._alerts.extend(
            Alert(at, webhook.receiver, alert.status, alert.labels, alert.annotations)
            for alert in webhook.alerts
        )

    def all(self) -> Sequence[Alert]:
        """Returns the kept alerts, oldest first."""
        return list(self._alerts)


def _decode(body: bytes) -> Webhook:
    try:
        return msgspec.json.decode(body, type=Webhook)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequest("body", f"expected Alertmanager's webhook: {error}") from error
