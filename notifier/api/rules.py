"""The rules that the API checks requests against: channels, providers and limits.

Values that the settings hold have no default here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from notifier.domain.controls import ScopeKind
from notifier.domain.lookups import NO_LOOKUPS, LookupRules
from notifier.domain.notification import WEBHOOK_CHANNEL, Priority, priorities_of


class AddressKind(StrEnum):
    """The form of the recipients of a channel."""

    EMAIL = "email"
    PHONE = "phone"
    TOKEN = "token"  # noqa: S105 a kind of address, no secret
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """The rules of submits on one channel. `has_receipts`: its provider sends some."""

    address: AddressKind
    has_receipts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRules:
    """Which URLs webhooks may have, and for how long a call is tried."""

    allow_http: bool = False
    allow_private: Sequence[str] = ()
    ttl: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRules:
    """Channels, providers and limits.

    The limits in bytes and `max_batch` together keep one request from holding the event loop for
    long. `max_batches_in_flight` limits memory: a batch may be 16 times as large as a single
    submit. So does `max_held_bytes`, of the bodies larger than `max_body_bytes` that are held at
    once; such a body has files. `public_url` and `trusted_proxies` are as in `PublicAddress`;
    `host` is where the API listens. `guards_metrics`: metrics need a key, if the API asks for any.
    `test_channel` takes what test keys submit, and nothing else; "": test keys submit nothing.
    `sms_prefixes` are those of the phone numbers that are accepted, all if there are none.
    `lookups`: by what notifications can be found. `cors_origins` are those whose pages may read
    inboxes.
    """

    channels: Mapping[str, ChannelRules]
    providers: Sequence[str]
    default_ttl: Mapping[Priority, timedelta]
    retention: timedelta
    max_in_flight: int
    request_deadline_s: float
    max_batch: int
    max_content_bytes: int
    public_url: str
    trusted_proxies: Sequence[str]
    max_request_bytes: int
    max_held_bytes: int
    max_attachment_bytes: int
    allowed_headers: Sequence[str] = ()
    host: str = ""
    guards_metrics: bool = False
    test_channel: str = ""
    sms_prefixes: Sequence[str] = ()
    lookups: LookupRules = NO_LOOKUPS
    webhooks: WebhookRules = WebhookRules()
    cors_origins: Sequence[str] = ()
    max_batches_in_flight: int = 64
    body_timeout_s: float = 30.0
    max_metadata_bytes: int = 16 * 1024
    max_batch_bytes: int = 8 * 1024 * 1024

    @property
    def submit_channels(self) -> Mapping[str, ChannelRules]:
        """The channels that a submit may name."""
        own = {self.test_channel, WEBHOOK_CHANNEL}
        return {name: rules for name, rules in self.channels.items() if name not in own}

    @property
    def listed_channels(self) -> Mapping[str, ChannelRules]:
        """The channels by which notifications are found."""
        return {name: rules for name, rules in self.channels.items() if name != self.test_channel}

    def names_of(self, kind: ScopeKind) -> Sequence[str]:
        """Returns the names of all queues, channels or providers; none of tags and tenants."""
        match kind:
            case ScopeKind.QUEUE:
                return [
                    f"{channel}.{priority}"
                    for channel in self.channels
                    for priority in priorities_of(channel)
                ]
            case ScopeKind.CHANNEL:
                return list(self.channels)
            case ScopeKind.PROVIDER:
                return list(self.providers)
            case ScopeKind.TAG | ScopeKind.TENANT:
                return ()

    @property
    def max_body_bytes(self) -> int:
        """The maximum size of a submit without its files, or of one item of a batch.

        It has room for the content with JSON escapes, and for the other fields.
        """
        return 2 * self.max_content_bytes

    @property
    def max_single_bytes(self) -> int:
        """The maximum size of a single submit with its files."""
        with_files = self.max_request_bytes if self.max_attachment_bytes else 0
        return max(self.max_body_bytes, with_files)

    @property
    def size_limits_text(self) -> str:
        """A description of the size limits for callers."""
        return (
            f"A notification takes at most {self.max_body_bytes:,} bytes, with "
            f"{self.max_content_bytes:,} of content and {self.max_metadata_bytes:,} of metadata; "
            f"with files {self.max_single_bytes:,} bytes, with {self.max_attachment_bytes:,} of "
            f"files; a batch at most {self.max_batch:,} notifications and "
            f"{self.max_batch_bytes:,} bytes. Split a larger batch into several."
        )

    @property
    def max_ttl(self) -> timedelta:
        """The longest ttl: a notification is final one day before its partition is dropped."""
        return self.retention - timedelta(days=1)

    @property
    def max_delay(self) -> timedelta:
        """The longest time until `send_at`: it leaves that day and a week for retries."""
        return self.retention - timedelta(days=8)
