"""The outcome of one provider call. Every provider maps its responses to one of these five."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final

import msgspec

MAX_CODE_LENGTH: Final = 64
MAX_DETAIL_LENGTH: Final = 300
MAX_REFERENCE_LENGTH: Final = 300
"""The number of characters that are kept of each text from a provider."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The provider accepted the message. `reference` is the provider's id of it, if it sent one."""

    name: ClassVar[str] = "accepted"
    code: str = ""
    detail: str = ""
    reference: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The provider rejected the message for good."""

    name: ClassVar[str] = "refused"
    code: str
    detail: str = ""


class Throttled(msgspec.Struct, frozen=True, kw_only=True):
    """The provider limits the rate: surely not sent, and no try is spent.

    `after` is the wait that the provider asked for, if it asked for one.
    """

    name: ClassVar[str] = "throttled"
    code: str
    detail: str = ""
    after: timedelta | None = None


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """Surely not sent.

    `spends` is False if the notification is not the cause (rejected credentials): no try is spent.
    `after` is the minimum wait that the provider asked for, if it asked for one. `is_local` means
    that the provider was not called (no session free, none configured), so the outcome says nothing
    about its health.
    """

    name: ClassVar[str] = "unavailable"
    code: str
    detail: str = ""
    spends: bool = True
    is_local: bool = False
    after: timedelta | None = None


class Ambiguous(msgspec.Struct, frozen=True, kw_only=True):
    """The connection broke or timed out after the request: it may have been sent."""

    name: ClassVar[str] = "ambiguous"
    code: str
    detail: str = ""


Outcome = Accepted | Refused | Throttled | Unavailable | Ambiguous
