"""Logs and counts that a breaker opens or stays open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.breaker import Opening

if TYPE_CHECKING:
    from notifier.ports.observer import BreakerObserver

CREDENTIALS_ADVICE: Final = (
    "the provider refuses our credentials or TLS: the attempts show its reply; change the "
    "credentials, files of secrets are read again"
)

log = structlog.get_logger(__name__)


def report_opening(
    observer: BreakerObserver, event: str, provider: str, reason: Opening, /, **fields: object
) -> None:
    """Count the opening and log `event`, as an error if only a person can fix the reason."""
    observer.breaker_opened(provider, reason)
    if reason is Opening.CREDENTIALS:
        log.error(event, provider=provider, reason=reason, **fields, advice=CREDENTIALS_ADVICE)
    else:
        log.warning(event, provider=provider, reason=reason, **fields)
