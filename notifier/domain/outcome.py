"""What a provider said to one attempt. Every provider maps its answers to one of these five."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final

import msgspec

MAX_CODE_LENGTH: Final = 64
MAX_DETAIL_LENGTH: Final = 300
MAX_REFERENCE_LENGTH: Final = 300
"""Characters kept of what a provider said."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The provider took it. `reference` is its own id for the message, if it gave one."""

    name: ClassVar[str] = "accepted"
    code: str = ""
    detail: str = ""
    reference: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The provider will never take it. `gone` means the address itself no longer exists."""

    name: ClassVar[str] = "refused"
    code: str
    detail: str = ""
    gone: bool = False


class Throttled(msgspec.Struct, frozen=True, kw_only=True):
    """Too fast: not sent for sure, no try spent. `after` is the wait it asked for, if it did."""

    name: ClassVar[str] = "throttled"
    code: str
    detail: str = ""
    after: timedelta | None = None


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """Not sent for sure. Bad credentials are `spends=False`: not the notification's fault.

    `after` is the least wait the provider asked for, if it did. `is_local` says that the provider
    was not even asked (no session free, none configured): it tells nothing of its health.
    """

    name: ClassVar[str] = "unavailable"
    code: str
    detail: str = ""
    spends: bool = True
    is_local: bool = False
    after: timedelta | None = None


class Ambiguous(msgspec.Struct, frozen=True, kw_only=True):
    """Cut or timed out after the request went out: it may have been sent."""

    name: ClassVar[str] = "ambiguous"
    code: str
    detail: str = ""


Outcome = Accepted | Refused | Throttled | Unavailable | Ambiguous
