"""The outcome of one provider call. Every provider maps its responses to one of these seven.

They differ in what the response says about: this message for good (Refused) or for now (Deferred),
our rate (Throttled), our settings (Misconfigured), the provider (Unavailable). `code` is the most
specific code of the provider, or one of ours (`timeout`); `http_status` that of the response, None
if there was none or the protocol is another one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final

import msgspec

TIMEOUT: Final = "timeout"
"""The code of a call that was not answered within its time."""
MAX_CODE_LENGTH: Final = 64
MAX_DETAIL_LENGTH: Final = 300
MAX_REFERENCE_LENGTH: Final = 300
"""The number of characters that are kept of each text from a provider."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The provider accepted the message. `reference` is the provider's id of it, if it sent one.

    `refused_copies` is how many copies of an email it refused.
    """

    name: ClassVar[str] = "accepted"
    code: str = ""
    detail: str = ""
    http_status: int | None = None
    reference: str = ""
    refused_copies: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The provider rejected the message for good.

    `is_local` means that the provider was not asked (template, address or content that cannot be
    sent): the outcome says nothing about its health, but many in a row show a wrong setting.
    """

    name: ClassVar[str] = "refused"
    code: str
    detail: str = ""
    http_status: int | None = None
    is_local: bool = False


class Deferred(msgspec.Struct, frozen=True, kw_only=True):
    """This recipient or message must wait (mailbox full, greylisting): surely not sent.

    It says nothing about other messages, and no try is spent. `after` is the minimum wait that the
    provider asked for, if it asked for one.
    """

    name: ClassVar[str] = "deferred"
    code: str
    detail: str = ""
    http_status: int | None = None
    after: timedelta | None = None


class Throttled(msgspec.Struct, frozen=True, kw_only=True):
    """The provider limits the rate: surely not sent, and no try is spent.

    `after` is the wait that the provider asked for, if it asked for one.
    """

    name: ClassVar[str] = "throttled"
    code: str
    detail: str = ""
    http_status: int | None = None
    after: timedelta | None = None


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """The provider has a fault: surely not sent, and a try is spent.

    `after` is the minimum wait that the provider asked for, if it asked for one. `is_local` means
    that the provider was not called (no session free, none configured): the outcome says nothing
    about its health, and no try is spent.
    """

    name: ClassVar[str] = "unavailable"
    code: str
    detail: str = ""
    http_status: int | None = None
    is_local: bool = False
    after: timedelta | None = None


class Misconfigured(msgspec.Struct, frozen=True, kw_only=True):
    """The provider rejects what our settings say: surely not sent, and no try is spent.

    For example our sender address, our host name in HELO, a URL that does not exist, an account
    without credit. `is_credentials` means that it rejects our authentication.
    """

    name: ClassVar[str] = "misconfigured"
    code: str
    detail: str = ""
    http_status: int | None = None
    is_credentials: bool = False


class Ambiguous(msgspec.Struct, frozen=True, kw_only=True):
    """The connection broke or timed out after the request: it may have been sent."""

    name: ClassVar[str] = "ambiguous"
    code: str
    detail: str = ""
    http_status: int | None = None


Outcome = Accepted | Refused | Deferred | Throttled | Unavailable | Misconfigured | Ambiguous
OUTCOMES: Final[tuple[type[Outcome], ...]] = (
    Accepted,
    Refused,
    Deferred,
    Throttled,
    Unavailable,
    Misconfigured,
    Ambiguous,
)
