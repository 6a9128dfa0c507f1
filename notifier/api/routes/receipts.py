"""`/v1/receipts/{provider}`: what providers report later about messages that they accepted.

The signature of the provider is the permission. A request is answered after its receipts are
stored; they are matched afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from logging import DEBUG, WARNING
from typing import Any, Final, assert_never

import structlog
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.http.body import BodyLimit, read_body
from notifier.api.http.deadline import deadline
from notifier.api.http.in_flight_limit import InFlightLimit
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import RawResponse
from notifier.api.requests import WHOLE_BODY
from notifier.api.rules import ApiRules
from notifier.domain.errors import InvalidNotification, NotFound
from notifier.domain.receipts import MAX_RECEIPTS, NewReceipt
from notifier.ports.observer import ReceiptObserver
from notifier.ports.receipts import ReceiptRefusal, ReceiptStore, ReceiptVerifier

RECEIPTS: Final = "/v1/receipts"
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_IN_FLIGHT: Final = 16
"""Requests with receipts in one process; more get 503, so that submits are not held up."""
_CHALLENGE: Final = {"WWW-Authenticate": "Signature"}

log = structlog.get_logger(__name__)


class ReceiptRoutes:
    """Handlers of `/v1/receipts/{provider}`. `verifiers` has the providers that send receipts."""

    def __init__(
        self,
        *,
        store: ReceiptStore,
        verifiers: Mapping[str, ReceiptVerifier],
        observer: ReceiptObserver,
        rules: ApiRules,
    ) -> None:
        self._store = store
        self._verifiers = verifiers
        self._observer = observer
        self._deadline_s = rules.request_deadline_s
        self._in_flight = InFlightLimit(MAX_IN_FLIGHT)
        self._limit = BodyLimit(
            max_bytes=MAX_BODY_BYTES,
            timeout_s=rules.body_timeout_s,
            detail=f"Send at most {MAX_RECEIPTS:,} receipts in a request.",
        )

    async def receive(self, request: Request[Any, Any, Any]) -> ASGIApp:
        provider = str(request.path_params["provider"])
        verifier = self._verifiers.get(provider)
        if verifier is None:
            raise NotFound
        with self._in_flight:
            body = await read_body(request, self._limit)
            receipts = self._verified(provider, verifier, body, _headers(request))
            if receipts:
                async with deadline(self._deadline_s):
                    added = await self._store.add(provider, receipts)
                for event, count in Counter(receipt.event for receipt in receipts).items():
                    self._observer.receipts_received(provider, event, count)
                log.debug("receipts_stored", provider=provider, count=len(receipts), new=added)
        return RawResponse(204, b"", ())

    def _verified(
        self, provider: str, verifier: ReceiptVerifier, body: bytes, headers: Mapping[str, str]
    ) -> Sequence[NewReceipt]:
        """Return the receipts of a request. Raises RequestRefused and InvalidNotification."""
        verified = verifier.verify(body, headers, datetime.now(UTC))
        if isinstance(verified, ReceiptRefusal):
            self._observer.receipts_refused(provider)
            # Anyone may send what is not signed: that must not fill the log.
            is_signed = verified is not ReceiptRefusal.SIGNATURE
            level = WARNING if is_signed else DEBUG
            log.log(level, "receipts_refused", provider=provider, reason=verified.value)
            raise self._refusal(verified)
        return verified

    def _refusal(self, refusal: ReceiptRefusal) -> RequestRefused | InvalidNotification:
        match refusal:
            case ReceiptRefusal.SIGNATURE:
                problem = ProblemType.SIGNATURE_INVALID.problem(
                    "The provider's secret and the clocks of both sides must agree."
                )
                return RequestRefused(problem, _CHALLENGE)
            case ReceiptRefusal.BODY:
                return InvalidNotification(WHOLE_BODY, "receipts in the form of this provider")
            case ReceiptRefusal.TOO_MANY:
                return self._limit.too_large()
            case _:
                assert_never(refusal)


def _headers(request: Request[Any, Any, Any]) -> Mapping[str, str]:
    """Return the headers by their names in lower case, of several the last one."""
    return {
        str(name, "latin-1").lower(): str(value, "latin-1")
        for name, value in request.scope["headers"]
    }
