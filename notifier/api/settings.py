"""What the API must be told: the channels it takes, and the bounds of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from notifier.domain.controls import ScopeKind
from notifier.domain.notification import Priority


class AddressKind(StrEnum):
    """What a channel's recipients look like."""

    EMAIL = "email"
    PHONE = "phone"
    TOKEN = "token"  # noqa: S105 a kind of address, no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """What a submit on one channel has to keep."""

    address: AddressKind


DEFAULT_CHANNELS: Final[Mapping[str, ChannelRules]] = MappingProxyType(
    {
        "email": ChannelRules(address=AddressKind.EMAIL),
        "sms": ChannelRules(address=AddressKind.PHONE),
        "push": ChannelRules(address=AddressKind.TOKEN),
    }
)
DEFAULT_TTL: Final[Mapping[Priority, timedelta]] = MappingProxyType(
    {
        Priority.HIGH: timedelta(hours=1),
        Priority.MEDIUM: timedelta(days=1),
        Priority.LOW: timedelta(days=3),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Channels and bounds.

    `max_batches_in_flight` bounds memory: a batch may be 16 x a single. The bounds in bytes and
    `max_batch` together keep any one request from holding the event loop for long.
    """

    channels: Mapping[str, ChannelRules] = field(default_factory=lambda: DEFAULT_CHANNELS)
    providers: Sequence[str] = ()
    default_ttl: Mapping[Priority, timedelta] = field(default_factory=lambda: DEFAULT_TTL)
    retention: timedelta = timedelta(days=30)
    max_in_flight: int = 2000
    max_batches_in_flight: int = 64
    request_deadline_s: float = 5.0
    body_deadline_s: float = 30.0
    max_batch: int = 1000
    max_content_bytes: int = 256 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_batch_bytes: int = 8 * 1024 * 1024

    def names_of(self, kind: ScopeKind) -> Sequence[str]:
        """All there is of a kind: queues, channels or providers."""
        match kind:
            case ScopeKind.QUEUE:
                return [
                    f"{channel}.{priority}" for channel in self.channels for priority in Priority
                ]
            case ScopeKind.CHANNEL:
                return list(self.channels)
            case ScopeKind.PROVIDER:
                return list(self.providers)

    @property
    def max_body_bytes(self) -> int:
        """Of a single submit, or an item of a batch: room for the content, escapes, the rest."""
        return 2 * self.max_content_bytes

    @property
    def bounds(self) -> str:
        """All bounds of a request's body, in words."""
        return (
            f"A notification takes at most {self.max_body_bytes:,} bytes, with "
            f"{self.max_content_bytes:,} of content and {self.max_metadata_bytes:,} of metadata; "
            f"a batch at most {self.max_batch:,} notifications and {self.max_batch_bytes:,} bytes. "
            "What does not fit into one batch goes into several."
        )

    @property
    def max_ttl(self) -> timedelta:
        """A notification is final a day before its partition is dropped."""
        return self.retention - timedelta(days=1)

    @property
    def max_delay(self) -> timedelta:
        """A scheduled send leaves a week for its retries, and that day."""
        return self.retention - timedelta(days=8)
