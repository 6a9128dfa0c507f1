"""The configurable behaviour of each channel, in addition to the fates: latency and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from notifier.sandbox.errors import InvalidRequest

CHANNELS: Final = ("email", "sms", "push")


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviour of one channel.

    A share `error_share` of the calls fails with `status` (None: 503, and 451 for email) and with
    `retry_after`, if it is set. A hanging call ends after `hang_s`. If `password` is set, an HTTP
    call without it is answered 401.
    """

    latency_ms: float = 0.0
    error_share: float = 0.0
    status: int | None = None
    retry_after: int | None = None
    hang_s: float = 60.0
    password: str | None = None


class BehaviourPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /behaviour`. A field that is absent or null returns to its default."""

    channel: str | None = None
    latency_ms: Annotated[float, Meta(ge=0, le=3_600_000)] | None = None
    error_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    retry_after: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    hang_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    password: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class Behaviours:
    """The current behaviour of every channel."""

    def __init__(self) -> None:
        self._of = dict.fromkeys(CHANNELS, Behaviour())

    def of(self, channel: str) -> Behaviour:
        """Returns the behaviour of one channel."""
        return self._of[channel]

    def all(self) -> Mapping[str, Behaviour]:
        """Returns the behaviour of every channel, by channel."""
        return self._of

    def replace(self, body: bytes) -> None:
        """Replaces the behaviour of the channel that the body names, or of all channels.

        Raises InvalidRequest and then changes nothing.
        """
        patch = _decode(body)
        if patch.channel is not None and patch.channel not in CHANNELS:
            raise InvalidRequest("channel", f"expected one of {', '.join(CHANNELS)}")
        if patch.password is not None and patch.channel in (None, "email"):
            raise InvalidRequest(
                "password", "expected for channel sms or push: email is sent without one"
            )
        given = {
            field: getattr(patch, field)
            for field in Behaviour.__struct_fields__
            if getattr(patch, field) is not None
        }
        for channel in CHANNELS if patch.channel is None else (patch.channel,):
            self._of[channel] = Behaviour(**given)


def _decode(body: bytes) -> BehaviourPatch:
    try:
        return msgspec.json.decode(body, type=BehaviourPatch)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        unknown = message.partition("unknown field `")[2]
        raise InvalidRequest((path or unknown or "body").rstrip("`"), message) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequest("body", f"expected a JSON object: {error}") from error
