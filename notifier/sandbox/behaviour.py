"""How a channel of the sandbox behaves beside the fates: slow, failing for a share of calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

CHANNELS: Final = ("email", "sms", "push")


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """One channel's behaviour.

    `error_share` of the calls are answered with `status` (503, for email 451, when None) and, if
    given, with `retry_after`. A hanging call is let go after `hang_s`. A call over HTTP without
    the `password`, if there is one, is answered with 401.
    """

    latency_ms: float = 0.0
    error_share: float = 0.0
    status: int | None = None
    retry_after: int | None = None
    hang_s: float = 60.0
    password: str | None = None


class BehaviourPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /behaviour`: what is left out, or null, is as at the start."""

    channel: str | None = None
    latency_ms: Annotated[float, Meta(ge=0, le=3_600_000)] | None = None
    error_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    retry_after: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    hang_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    password: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class InvalidBehaviour(Exception):
    """The body is wrong; `field` says where, `expected` what would be right."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected


class Behaviours:
    """The behaviour of every channel."""

    def __init__(self) -> None:
        self._of = dict.fromkeys(CHANNELS, Behaviour())

    def of(self, channel: str) -> Behaviour:
        """How this channel behaves now."""
        return self._of[channel]

    def all(self) -> Mapping[str, Behaviour]:
        """Every channel with its behaviour."""
        return self._of

    def put(self, body: bytes) -> None:
        """Replace the behaviour of one channel, or of all.

        Raises InvalidBehaviour, and then changes nothing.
        """
        wish = _read(body)
        if wish.channel is not None and wish.channel not in CHANNELS:
            raise InvalidBehaviour("channel", f"expected one of {', '.join(CHANNELS)}")
        if wish.password is not None and wish.channel in (None, "email"):
            raise InvalidBehaviour(
                "password", "expected for channel sms or push: mail comes without one"
            )
        given = {
            field: getattr(wish, field)
            for field in Behaviour.__struct_fields__
            if getattr(wish, field) is not None
        }
        for channel in CHANNELS if wish.channel is None else (wish.channel,):
            self._of[channel] = Behaviour(**given)


def _read(body: bytes) -> BehaviourPatch:
    try:
        return msgspec.json.decode(body, type=BehaviourPatch)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        unknown = message.partition("unknown field `")[2]
        raise InvalidBehaviour((path or unknown or "body").rstrip("`"), message) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidBehaviour("body", f"expected a JSON object: {error}") from error
