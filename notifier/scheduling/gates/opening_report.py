"""Logs and counts that a breaker opens or stays open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.breaker import NEEDS_A_PERSON, Opening

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.ports.observer import BreakerObserver

ADVICE: Final[Mapping[Opening, str]] = {
    Opening.CREDENTIALS: (
        "the provider refuses our credentials or TLS: the attempts show its reply; change the "
        "credentials, files of secrets are read again"
    ),
    Opening.CONFIGURATION: (
        "the provider rejects what the settings say (sender, URL, account): the attempts show its "
        "reply; correct providers.<name>"
    ),
    Opening.REFUSALS: (
        "it refused all recipients of late: the attempts show its reply; compare sender, "
        "authentication and URL in providers.<name> with what it expects"
    ),
}

log = structlog.get_logger(__name__)


def report_opening(
    observer: BreakerObserver,
    event: str,
    provider: str,
    reason: Opening,
    counted_as: Opening,
    /,
    **fields: object,
) -> None:
    """Count the opening as `counted_as` and log `event`.

    It is an error if only a person can fix the reason.
    """
    observer.breaker_opened(provider, counted_as)
    if reason in NEEDS_A_PERSON:
        log.error(event, provider=provider, reason=reason, **fields, advice=ADVICE[reason])
    else:
        log.warning(event, provider=provider, reason=reason, **fields)
