"""Receives every message of every protocol, decides its response, and logs the call."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from notifier.domain.fates import (
    Fate,
    ResponseKind,
    fate_of_address,
    fate_of_phone,
    fate_of_token,
    response_kind,
)
from notifier.sandbox.behaviour import Behaviour, Behaviours
from notifier.sandbox.calls import Call, CallLog
from notifier.sandbox.receipts import ReceiptSender

_FATES: Final = {"email": fate_of_address, "sms": fate_of_phone, "push": fate_of_token}
_STATUSES: Final[Mapping[str, Mapping[ResponseKind, int]]] = {
    "email": {
        ResponseKind.ACCEPT: 250,
        ResponseKind.REFUSE: 550,
        ResponseKind.THROTTLE: 450,
        ResponseKind.UNAVAILABLE: 451,
    },
    "sms": {
        ResponseKind.ACCEPT: 201,
        ResponseKind.REFUSE: 400,
        ResponseKind.THROTTLE: 429,
        ResponseKind.UNAVAILABLE: 503,
    },
    "push": {
        ResponseKind.ACCEPT: 200,
        ResponseKind.REFUSE: 404,
        ResponseKind.THROTTLE: 429,
        ResponseKind.UNAVAILABLE: 503,
    },
}
_SMTP_CODE_OF: Final = {
    **dict.fromkeys((500, 501, 502, 503, 504), 451),
    **dict.fromkeys((404, 410), 550),
    **dict.fromkeys((401, 403, 407), 535),
    408: 451,
    429: 450,
}
"""SMTP codes with the meaning of an HTTP status: a behaviour for all channels has an HTTP one."""

_THROTTLED_RETRY_AFTER_S: Final = 1
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class Response:
    """The response that the protocol sends after `latency_s`.

    A hang or a cut has `status` 0 and sends nothing; a hang closes the connection after `hang_s`.
    """

    kind: ResponseKind
    status: int
    latency_s: float
    retry_after: int | None
    hang_s: float


class FakeProvider:
    """Fates, behaviours, the call log, and the receipts of what was accepted."""

    def __init__(self, receipts: ReceiptSender) -> None:
        self.receipts = receipts
        self.log = CallLog()
        self.behaviours = Behaviours()
        self._random = random.Random(0)  # noqa: S311 a share of errors, no secret

    def refuses_recipient(self, channel: str, recipient: str) -> bool:
        """Whether the recipient's fate is `refuse`."""
        return _FATES[channel](recipient) is Fate.REFUSE

    def receive(
        self,
        channel: str,
        recipient: str,
        notification_id: str | None,
        claim: int | None,
        password: str | None = None,
    ) -> Response:
        """Decides the response of one call and logs it.

        Calls are counted by notification, or by recipient if the client sent no id.
        """
        at, fate = datetime.now(UTC), _FATES[channel](recipient)
        behaviour = self.behaviours.of(channel)
        response = self._configured_error(channel, behaviour, password)
        if response is None:
            earlier_calls = 0
            if fate in (Fate.FLAKY, Fate.THROTTLE):
                earlier_calls = self.log.count_call(channel, notification_id or recipient)
            response = _response(channel, response_kind(fate, earlier_calls), behaviour)
        is_accepted = response.kind in (ResponseKind.ACCEPT, ResponseKind.CUT)
        self.log.add(
            Call(at, channel, recipient, notification_id, claim, fate, is_accepted, response.status)
        )
        return response

    def took(self, channel: str, recipient: str, reference: str) -> None:
        """Sends the receipts of an accepted message, whose id was given to the client."""
        self.receipts.accepted(channel, recipient, _FATES[channel](recipient), reference)

    def _configured_error(
        self, channel: str, behaviour: Behaviour, password: str | None
    ) -> Response | None:
        if behaviour.password not in (None, password):
            return _error(_UNAUTHORIZED, behaviour)
        if self._random.random() >= behaviour.error_share:
            return None
        status = behaviour.status or _STATUSES[channel][ResponseKind.UNAVAILABLE]
        if channel == "email":
            status = _SMTP_CODE_OF.get(status, status)
        return _error(status, behaviour)


def _error(status: int, behaviour: Behaviour) -> Response:
    return Response(
        ResponseKind.UNAVAILABLE,
        status,
        behaviour.latency_ms / 1000,
        behaviour.retry_after,
        behaviour.hang_s,
    )


def _response(channel: str, kind: ResponseKind, behaviour: Behaviour) -> Response:
    return Response(
        kind,
        _STATUSES[channel].get(kind, 0),
        behaviour.latency_ms / 1000,
        _THROTTLED_RETRY_AFTER_S if kind is ResponseKind.THROTTLE else None,
        behaviour.hang_s,
    )
