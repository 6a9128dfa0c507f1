"""The alerts that Alertmanager's webhook brings: what a rehearsal reads to see that they arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from notifier.sandbox.behaviour import InvalidBehaviour

MAX_ALERTS: Final = 1000
"""How many are kept; the oldest go first."""


class Alert(msgspec.Struct, frozen=True, gc=False):
    """One alert of a notice. `at` is when it arrived, `receiver` the route it came by."""

    at: datetime
    receiver: str
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Told(msgspec.Struct, kw_only=True):
    """An alert as a notice has it."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}


class Notice(msgspec.Struct, kw_only=True):
    """Alertmanager's body (version 4), as far as it is kept."""

    receiver: str
    alerts: list[Told]


class AlertLog:
    """Alerts in the order they arrived. In memory, bounded."""

    def __init__(self) -> None:
        self._alerts: deque[Alert] = deque(maxlen=MAX_ALERTS)

    def take(self, body: bytes) -> None:
        """Log every alert of a notice. Raises InvalidBehaviour; then nothing was logged."""
        notice, at = _read(body), datetime.now(UTC)
        self._alerts.extend(
            Alert(at, notice.receiver, told.status, told.labels, told.annotations)
            for told in notice.alerts
        )

    def all(self) -> Sequence[Alert]:
        """What is kept, oldest first."""
        return list(self._alerts)


def _read(body: bytes) -> Notice:
    try:
        return msgspec.json.decode(body, type=Notice)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidBehaviour("body", f"expected Alertmanager's webhook: {error}") from error
