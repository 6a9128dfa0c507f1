"""Where every message is handed in, over whichever protocol: decides its answer and logs it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from notifier.sandbox.behaviour import Behaviour, Behaviours
from notifier.sandbox.calls import Call, CallLog
from notifier.sandbox.fates import (
    Fate,
    Kind,
    fate_of_address,
    fate_of_phone,
    fate_of_token,
    kind_of,
)

_FATES: Final = {"email": fate_of_address, "sms": fate_of_phone, "push": fate_of_token}
_STATUSES: Final[Mapping[str, Mapping[Kind, int]]] = {
    "email": {Kind.ACCEPT: 250, Kind.REFUSE: 550, Kind.THROTTLE: 450, Kind.UNAVAILABLE: 451},
    "sms": {Kind.ACCEPT: 201, Kind.REFUSE: 400, Kind.THROTTLE: 429, Kind.UNAVAILABLE: 503},
    "push": {Kind.ACCEPT: 200, Kind.REFUSE: 404, Kind.THROTTLE: 429, Kind.UNAVAILABLE: 503},
}
_AS_SMTP: Final = {
    **dict.fromkeys((500, 501, 502, 503, 504), 451),
    **dict.fromkeys((404, 410), 550),
    **dict.fromkeys((401, 403, 407), 535),
    408: 451,
    429: 450,
}
"""A `status` meant for every channel is an HTTP one; over SMTP it says the same."""

_THROTTLED_FOR_S: Final = 1
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class Answer:
    """What the protocol does: wait `latency_s`, then answer `status`, or 0: hang or cut."""

    kind: Kind
    status: int
    latency_s: float
    retry_after: int | None
    hang_s: float


class FakeProvider:
    """Fates, behaviours and the log, together."""

    def __init__(self) -> None:
        self.log = CallLog()
        self.behaviours = Behaviours()
        self._random = random.Random(0)  # noqa: S311 a share of errors, no secret

    def is_refused(self, channel: str, recipient: str) -> bool:
        """Whether the recipient's fate is to be refused, whatever the message."""
        return _FATES[channel](recipient) is Fate.REFUSE

    def take(
        self,
        channel: str,
        recipient: str,
        notification_id: str | None,
        claim: int | None,
        password: str | None = None,
    ) -> Answer:
        """Decide one call and log it. A caller that gave no id is counted by its recipient."""
        at, fate = datetime.now(UTC), _FATES[channel](recipient)
        behaviour = self.behaviours.of(channel)
        answer = self._error(channel, behaviour, password)
        if answer is None:
            counts = fate in (Fate.FLAKY, Fate.THROTTLE)
            earlier = self.log.count(channel, notification_id or recipient) if counts else 0
            answer = _answer(channel, kind_of(fate, earlier), behaviour)
        is_taken = answer.kind in (Kind.ACCEPT, Kind.CUT)
        self.log.add(
            Call(at, channel, recipient, notification_id, claim, fate, is_taken, answer.status)
        )
        return answer

    def _error(self, channel: str, behaviour: Behaviour, password: str | None) -> Answer | None:
        if behaviour.password not in (None, password):
            return _failure(_UNAUTHORIZED, behaviour)
        if self._random.random() >= behaviour.error_share:
            return None
        status = behaviour.status or _STATUSES[channel][Kind.UNAVAILABLE]
        if channel == "email":
            status = _AS_SMTP.get(status, status)
        return _failure(status, behaviour)


def _failure(status: int, behaviour: Behaviour) -> Answer:
    return Answer(
        Kind.UNAVAILABLE,
        status,
        behaviour.latency_ms / 1000,
        behaviour.retry_after,
        behaviour.hang_s,
    )


def _answer(channel: str, kind: Kind, behaviour: Behaviour) -> Answer:
    return Answer(
        kind,
        _STATUSES[channel].get(kind, 0),
        behaviour.latency_ms / 1000,
        _THROTTLED_FOR_S if kind is Kind.THROTTLE else None,
        behaviour.hang_s,
    )
