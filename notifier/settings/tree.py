"""The settings as one frozen tree. Durations are seconds, and their names end in `_s`.

Every field declares its range, so that an error can name the expected values.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from notifier.domain.notification import Priority
from notifier.settings.secrets import masked

MIB: Final = 1024 * 1024
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
Span = Annotated[float, Meta(gt=0, le=400 * 86_400)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="a name like email")]
Host = Annotated[str, Meta(min_length=1, max_length=255, description="a host name or address")]
DATABASE_URL: Final = "a URL like postgresql://user:password@host/database"
BROKER_URL: Final = "a URL like amqp://user:password@host/vhost"
DatabaseUrl = Annotated[
    str, Meta(pattern=r"^$|^postgres(ql)?://", description=DATABASE_URL)
]  # checks.py checks the rest of a URL
PUBLIC_URL: Final = "a URL like https://notify.example.com/prefix, without query"
PublicUrl = Annotated[
    str,
    Meta(
        pattern=(
            r"^$|^https?://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
            r"(/[A-Za-z0-9._~-]+)*/?\Z"
        ),
        description=PUBLIC_URL,
    ),
]
ApiUrl = Annotated[
    str, Meta(pattern=r"^$|^https?://", description="a URL like https://notify.example.com")
]
KEY: Final = "a key like ntf_live_..., whole and without a typing error"
ApiKey = Annotated[str, Meta(pattern=r"^$|^ntf_(live|test)_", description=KEY)]
BrokerUrl = Annotated[str, Meta(pattern=r"^$|^amqps?://", description=BROKER_URL)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the settings. Its repr masks secrets."""

    def __repr__(self) -> str:
        """Return the fields with secrets masked."""
        table = type(self).__name__.removesuffix("Settings").lower()
        values = (
            f"{name}={masked(f'{table}.{name}', getattr(self, name))!r}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(values)})"


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """`[database]`. An empty URL means "not set"."""

    url: DatabaseUrl = ""
    statement_timeout_s: Seconds = 5.0


class BrokerSettings(Section, frozen=True, kw_only=True):
    """`[broker]`. An empty URL means "not set"."""

    url: BrokerUrl = ""
    publish_timeout_s: Seconds = 5.0


class ApiSettings(Section, frozen=True, kw_only=True):
    """`[api]`."""

    host: Host = "127.0.0.1"
    port: Port = 8000
    max_in_flight: Count = 2000
    request_deadline_s: Seconds = 5.0
    max_batch: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    max_content_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 262_144
    max_request_bytes: Annotated[int, Meta(ge=1024, le=64 * MIB)] = 14 * MIB
    max_held_bytes: Annotated[int, Meta(ge=MIB, le=64 * 1024 * MIB)] = 96 * MIB
    max_backlog: Annotated[int, Meta(ge=1)] = 5_000_000
    public_url: PublicUrl = ""
    trusted_proxies: tuple[str, ...] = ()
    auth: Literal["keys", "off"] = "keys"
    metrics_auth: Literal["off", "key"] = "off"
    cors_origins: tuple[str, ...] = ()


class WorkerSettings(Section, frozen=True, kw_only=True):
    """`[worker]`."""

    consumers: Annotated[int, Meta(ge=1, le=4096)] = 64
    max_held_bytes: Annotated[int, Meta(ge=MIB, le=64 * 1024 * MIB)] = 64 * MIB
    grace_s: Seconds = 25.0
    send_timeout_s: Seconds = 20.0
    metrics_host: Host = "127.0.0.1"
    metrics_port: Port = 8001


class PrioritySettings(Section, frozen=True, kw_only=True):
    """`[priorities.<name>]`: weight, target wait, time to live and retries of a priority.

    The n-th retry waits about `min(retry_cap_s, retry_base_s * retry_factor ** (n - 1))`.
    """

    weight: Annotated[float, Meta(gt=0, le=1000)]
    target_wait_s: Span
    ttl_s: Span
    retry_base_s: Span
    retry_factor: Annotated[float, Meta(ge=1, le=100)]
    retry_cap_s: Span
    tries: Annotated[int, Meta(ge=1, le=1000)]


_HIGH = PrioritySettings(
    weight=8.0,
    target_wait_s=1.0,
    ttl_s=3600.0,
    retry_base_s=1.0,
    retry_factor=2.0,
    retry_cap_s=60.0,
    tries=8,
)
_MEDIUM = PrioritySettings(
    weight=3.0,
    target_wait_s=10.0,
    ttl_s=86_400.0,
    retry_base_s=5.0,
    retry_factor=3.0,
    retry_cap_s=900.0,
    tries=8,
)
_LOW = PrioritySettings(
    weight=1.0,
    target_wait_s=60.0,
    ttl_s=259_200.0,
    retry_base_s=30.0,
    retry_factor=3.0,
    retry_cap_s=7200.0,
    tries=10,
)


class PrioritiesSettings(Section, frozen=True, kw_only=True):
    """`[priorities]`."""

    high: PrioritySettings = _HIGH
    medium: PrioritySettings = _MEDIUM
    low: PrioritySettings = _LOW

    def of(self, priority: Priority) -> PrioritySettings:
        """Return the settings of one priority."""
        settings: PrioritySettings = getattr(self, priority)
        return settings


class ChannelSettings(Section, frozen=True, kw_only=True):
    """`[channels.<name>]`: kind of address, provider, and limits of the consumers."""

    address: Literal["email", "phone", "token", "user"]
    provider: Name
    ambiguous: Literal["resend", "hold"] = "resend"
    ambiguous_tries: Annotated[int, Meta(ge=0, le=1000)] = 1
    stop_unanswered_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    consumer_rate: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    max_consumers: Annotated[int, Meta(ge=1, le=4096)] | None = None


class ContentSettings(Section, frozen=True, kw_only=True):
    """`[content]`: what a notification may contain."""

    allowed_headers: tuple[str, ...] = ()
    max_attachment_bytes: Annotated[int, Meta(ge=0, le=48 * MIB)] = 10 * MIB


class LimitsSettings(Section, frozen=True, kw_only=True):
    """`[limits]`: what is refused at submit, against abuse. Empty: no limit."""

    sms_prefixes: tuple[str, ...] = ()
    recipient_per_day: Mapping[Name, Annotated[int, Meta(ge=0, le=1_000_000)]] = {}


ContentSeconds = Annotated[float, Meta(ge=0, le=400 * 86_400)]


class ContentAgeSettings(Section, frozen=True, kw_only=True):
    """`retention.content_s`: for how long contents are kept after a notification is final."""

    high: ContentSeconds = 86_400.0
    medium: ContentSeconds = 604_800.0
    low: ContentSeconds = 604_800.0

    def of(self, priority: Priority) -> float:
        """Return the seconds of one priority."""
        seconds: float = getattr(self, priority)
        return seconds


class RetentionSettings(Section, frozen=True, kw_only=True):
    """`[retention]`: for how long notifications, contents and entries of the audit are kept.

    `stats_minutes_days` and so on: the statistics of minutes, hours and days. A receipt whose
    notification is not found is kept for `receipts_unmatched_s`.
    """

    days: Annotated[int, Meta(ge=9, le=400)] = 30
    content_s: ContentAgeSettings = ContentAgeSettings()
    audit_days: Annotated[int, Meta(ge=31, le=3650)] = 365
    events_days: Annotated[int, Meta(ge=1, le=400)] = 7
    stats_minutes_days: Annotated[int, Meta(ge=1, le=31)] = 3
    stats_hours_days: Annotated[int, Meta(ge=2, le=400)] = 62
    stats_days_days: Annotated[int, Meta(ge=31, le=3650)] = 1095
    receipts_unmatched_s: Annotated[float, Meta(ge=3600, le=2_592_000)] = 604_800.0


class EventSettings(Section, frozen=True, kw_only=True):
    """`[events]`: whether what becomes of notifications can be read as events."""

    enabled: bool = True


class GuardSettings(Section, frozen=True, kw_only=True):
    """`[guard]`: when a tag is paused because providers refuse too much of it. 0: never."""

    refused_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    least_results: Count = 200
    window_s: Annotated[float, Meta(ge=60, le=3600)] = 600.0


class WebhookSettings(Section, frozen=True, kw_only=True):
    """`[webhooks]`: how webhooks are called. `allow_private` are networks like 10.1.0.0/16."""

    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 15.0
    retry_s: Annotated[tuple[Span, ...], Meta(min_length=1, max_length=20)] = (
        5.0,
        300.0,
        1800.0,
        7200.0,
        18_000.0,
        36_000.0,
        36_000.0,
    )
    disable_after_s: Span = 432_000.0
    allow_private: tuple[str, ...] = ()
    allow_http: bool = False
    per_endpoint: Annotated[int, Meta(ge=1, le=100)] = 4


class IdempotencySettings(Section, frozen=True, kw_only=True):
    """`[idempotency]`: for how long the keys of submits are kept at least."""

    keep_s: Annotated[float, Meta(ge=3600, le=604_800)] = 86_400.0


class LookupSettings(Section, frozen=True, kw_only=True):
    """`[lookups]`: by what notifications can be found. Each stores a row per notification."""

    recipient: bool = False
    tag: bool = True
    reference: bool = False
    metadata_keys: tuple[str, ...] = ()


class LogSettings(Section, frozen=True, kw_only=True):
    """`[log]`: `auto` is `console` on a terminal and `json` otherwise."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class SandboxSettings(Section, frozen=True, kw_only=True):
    """`[sandbox]`: addresses of the fake provider."""

    host: Host = "127.0.0.1"
    http_port: Port = 8025
    smtp_port: Port = 2525


class SecuritySettings(Section, frozen=True, kw_only=True):
    """`[security]`: the secrets that sign tokens, and how long a session lasts.

    Each line of `secret_key` is one secret: the first signs, all verify. Empty: one that `migrate`
    made is read from Postgres.
    """

    secret_key: str = ""
    session_s: Annotated[float, Meta(ge=300, le=604_800)] = 43_200.0

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the secrets, without blanks around them."""
        return tuple(line.strip() for line in self.secret_key.splitlines() if line.strip())


class ClientSettings(Section, frozen=True, kw_only=True):
    """`[client]`: the API that the commands call, and the key they send. Empty: `[api]`, none."""

    url: ApiUrl = ""
    key: ApiKey = ""


class Settings(Section, frozen=True, kw_only=True):
    """All settings. `providers` are raw tables, which `convert_table` reads into structs."""

    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    api: ApiSettings = ApiSettings()
    worker: WorkerSettings = WorkerSettings()
    priorities: PrioritiesSettings = PrioritiesSettings()
    channels: Mapping[Name, ChannelSettings] = {}
    providers: Mapping[Name, Mapping[str, object]] = {}
    content: ContentSettings = ContentSettings()
    limits: LimitsSettings = LimitsSettings()
    guard: GuardSettings = GuardSettings()
    retention: RetentionSettings = RetentionSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    events: EventSettings = EventSettings()
    webhooks: WebhookSettings = WebhookSettings()
    lookups: LookupSettings = LookupSettings()
    log: LogSettings = LogSettings()
    sandbox: SandboxSettings = SandboxSettings()
    security: SecuritySettings = SecuritySettings()
    client: ClientSettings = ClientSettings()
