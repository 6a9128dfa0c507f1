"""The provider of the channel `webhook`: one signed HTTP request to the URL of a webhook.

What a call results in is noted for its webhook, and is no evidence about the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec
import structlog

from notifier.domain.errors import StoreError
from notifier.domain.features import WEBHOOK_EVENT
from notifier.domain.outcome import Accepted, Refused, Unavailable
from notifier.domain.webhooks import signatures
from notifier.ports.webhooks import Answered, CallSummary, Unanswered

if TYPE_CHECKING:
    from random import Random

    from notifier.domain.outcome import Outcome
    from notifier.domain.webhook_calls import CallLimits
    from notifier.domain.webhooks import WebhookTarget
    from notifier.lifecycle import Clock
    from notifier.ports.observer import WebhookObserver
    from notifier.ports.provider import Envelope
    from notifier.ports.webhooks import CallStore, WebhookTransport

TARGET_KEPT_S: Final = 1.0
"""A changed URL or secret counts after this time."""
MAX_TARGETS: Final = 10_000
NOTE_INTERVAL_S: Final = 1.0
_GONE: Final = 410
_SUCCESS: Final = range(200, 300)
_ENCODER: Final = msgspec.json.Encoder()

log = structlog.get_logger(__name__)


class _KnownTarget(NamedTuple):
    """A target, and the instant at which it was read."""

    target: WebhookTarget | None
    read_at: float


class _Results(msgspec.Struct):
    """The instants of the results of a webhook's calls since they were noted last."""

    url: str
    succeeded_at: float | None = None
    failed_at: float | None = None
    failing_at: float | None = None


class WebhookSender:
    """Implements ports.provider.Provider and ParksRecipients; its recipients are ids of webhooks.

    `clock` is the monotonic clock, `wall_clock` says the seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        *,
        store: CallStore,
        transport: WebhookTransport,
        limits: CallLimits,
        observer: WebhookObserver,
        clock: Clock,
        wall_clock: Clock,
        random: Random,
        disable_after_s: float,
    ) -> None:
        self._name = name
        self._store = store
        self._transport = transport
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random
        self._disable_after_s = disable_after_s
        self._targets: dict[UUID, _KnownTarget] = {}
        self._results: dict[UUID, _Results] = {}

    @property
    def name(self) -> str:
        """Implements ports.provider.Provider."""
        return self._name

    def parking_s(self, recipient: str) -> float | None:
        """Implements ports.provider.ParksRecipients."""
        webhook = _webhook_of(recipient)
        if webhook is None:
            return None
        return self._limits.parking_s(webhook, self._clock(), self._random.random())

    async def send(self, envelope: Envelope) -> Outcome:
        """Implements ports.provider.Provider. A call that is cancelled counts for nothing."""
        webhook, event = _webhook_of(envelope.recipient), envelope.content.get(WEBHOOK_EVENT)
        if webhook is None or not isinstance(event, Mapping):
            return Refused(code="no_event", is_local=True)
        counted_as = self._limits.begin(webhook)
        try:
            return await self._call(webhook, event)
        finally:
            self._limits.end(webhook, counted_as)

    async def run_once(self) -> None:
        """Note what the calls resulted in since the last time. A failure repeats it later."""
        if not self._results:
            return
        now = self._clock()
        taken, self._results = self._results, {}
        summaries = {
            webhook: CallSummary(
                url=each.url,
                succeeded_s=_since(each.succeeded_at, now),
                failed_s=_since(each.failed_at, now),
                failing_s=_since(each.failing_at, now),
            )
            for webhook, each in taken.items()
        }
        try:
            disabled = await self._store.note_calls(summaries, self._disable_after_s)
        except StoreError as error:
            self._results = {**taken, **self._results}
            log.warning("webhook_results_kept", reason=str(error), webhooks=len(taken))
            return
        for each in disabled:
            self._targets.pop(each.id, None)
            self._disabled(each.id, each.reason)

    async def _call(self, webhook: UUID, event: Mapping[str, object]) -> Outcome:
        try:
            target = await self._target(webhook)
        except StoreError as error:
            return Unavailable(code="store_unavailable", detail=str(error), is_local=True)
        if target is None:
            return Refused(code="webhook_deleted", is_local=True)
        if not target.is_enabled:
            return Refused(code="webhook_disabled", is_local=True)
        body = _ENCODER.encode(event)
        started_at = self._clock()
        answer = await self._transport.post(target.url, self._headers(target, event, body), body)
        is_success = isinstance(answer, Answered) and answer.status in _SUCCESS
        self._note(webhook, target.url, started_at, is_success=is_success)
        if isinstance(answer, Unanswered):
            return Unavailable(code=answer.code, detail=answer.detail)
        if is_success:
            return Accepted(http_status=answer.status)
        if answer.status == _GONE:
            return await self._gone(webhook, target.url)
        after_s = answer.retry_after_s
        return Unavailable(
            code=str(answer.status),
            http_status=answer.status,
            after=None if after_s is None else timedelta(seconds=after_s),
        )

    async def _target(self, webhook: UUID) -> WebhookTarget | None:
        """Return where a webhook is called. Raises StoreError."""
        known, now = self._targets.get(webhook), self._clock()
        if known is not None and now - known.read_at < TARGET_KEPT_S:
            return known.target
        target = await self._store.target(webhook)
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        self._targets[webhook] = _KnownTarget(target, now)
        return target

    def _headers(
        self, target: WebhookTarget, event: Mapping[str, object], body: bytes
    ) -> Mapping[str, str]:
        message, at_s = str(event.get("id")), int(self._wall_clock())
        return {
            "Content-Type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signatures(target.secrets, message, at_s, body),
        }

    def _note(self, webhook: UUID, url: str, started_at: float, *, is_success: bool) -> None:
        now = self._clock()
        if is_success:
            self._limits.succeeded(webhook, now - started_at)
        else:
            self._limits.failed(webhook, started_at, now)
        results = self._results.get(webhook)
        if results is None or results.url != url:
            results = self._results[webhook] = _Results(url)
        if is_success:
            results.succeeded_at, results.failing_at = now, None
            return
        results.failed_at = now
        if results.failing_at is None:
            results.failing_at = now

    async def _gone(self, webhook: UUID, url: str) -> Outcome:
        try:
            if await self._store.disable_gone(webhook, url):
                self._disabled(webhook, "gone")
        except StoreError as error:  # its next call will be answered in the same way
            log.warning("webhook_not_disabled", webhook=str(webhook), reason=str(error))
        self._targets.pop(webhook, None)
        return Refused(code=str(_GONE), http_status=_GONE)

    def _disabled(self, webhook: UUID, reason: str) -> None:
        self._observer.webhook_disabled(reason)
        log.warning("webhook_disabled", webhook=str(webhook), reason=reason)


def _webhook_of(recipient: str) -> UUID | None:
    try:
        return UUID(recipient)
    except ValueError:
        return None


def _since(at: float | None, now: float) -> float | None:
    return None if at is None else now - at
