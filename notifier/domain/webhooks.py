"""Webhooks: URLs that are called with events. A call is a notification on the channel `webhook`."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from notifier.domain.credentials import Mode
from notifier.domain.events import Event, EventType, uuid7_of
from notifier.domain.features import WEBHOOK_EVENT, WEBHOOKS
from notifier.domain.idempotency import digest
from notifier.domain.lookups import EVENT_OF, Lookup, LookupKind
from notifier.domain.notification import (
    WEBHOOK_CHANNEL,
    Channel,
    NewNotification,
    NotificationId,
    Priority,
    QueueKey,
)
from notifier.domain.tenants import TenantId

MAX_WEBHOOKS: Final = 20
"""Of one tenant and mode, and of the deployment."""
MAX_URL_LENGTH: Final = 2048
MAX_WAITING: Final = 100_000
"""Calls that may wait for one webhook. The oldest ones beyond these expire."""
MAX_OVERLAP: Final = timedelta(days=7)
MAX_WAITING_IN_ALL: Final = 1_000_000
SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 not a secret
WEBHOOK_QUEUE: Final = QueueKey(Channel(WEBHOOK_CHANNEL), Priority.MEDIUM)
OF_DEPLOYMENT: Final = TenantId("*")
"""The tenant of calls for webhooks of the deployment. No tenant can have this name."""
ALL_NOTIFICATIONS: Final = "notification.*"
NEEDED_TO_CALL: Final = frozenset({WEBHOOKS})
_NOT_BY_DEFAULT: Final = frozenset({EventType.RETRYING})
DEPLOYMENT_TYPES: Final = frozenset(
    {
        EventType.BREAKER_OPENED,
        EventType.BREAKER_CLOSED,
        EventType.PAUSE_CREATED,
        EventType.PAUSE_DELETED,
        EventType.WORKER_LOST,
    }
)
"""Events of the deployment."""
_OF_BOTH: Final = frozenset({EventType.WEBHOOK_DISABLED})


class WebhookStatus(StrEnum):
    """Whether a webhook is called."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """Why a webhook is disabled.

    REQUEST: a person did it. FAILING: its calls have only failed for a long time. GONE: it answered
    410. Later versions may have more.
    """

    REQUEST = "request"
    FAILING = "failing"
    GONE = "gone"


class WebhookScope(NamedTuple):
    """Whose webhooks: of one tenant (None: of the deployment), of live or test notifications."""

    tenant: TenantId | None
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A stored webhook.

    `events` are types, or `notification.*`. `reason` is None while it is enabled. `failing_since`
    is when its calls began to fail, None if the last one succeeded.
    """

    id: UUID
    scope: WebhookScope
    url: str = field(repr=False)
    events: Sequence[str]
    status: WebhookStatus
    reason: str | None
    note: str
    created_at: datetime
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    failing_since: datetime | None = None

    def wants(self, event: Event) -> bool:
        """Whether it is called with an event: one of its own that happened after it was made."""
        return (
            self.status is WebhookStatus.ENABLED
            and event.tenant == self.scope.tenant
            and event.mode in {None, self.scope.mode}
            and event.at > self.created_at
            and is_named(event.type, self.events)
        )


def is_named(type_: str, events: Collection[str]) -> bool:
    """Whether a type is one of these, or one of those that `notification.*` stands for."""
    if type_ in events:
        return True
    return (
        ALL_NOTIFICATIONS in events
        and type_.startswith(ALL_NOTIFICATIONS[:-1])
        and type_ not in _NOT_BY_DEFAULT
    )


def allowed_types(scope: WebhookScope) -> Sequence[str]:
    """Return what the webhooks of a scope may name. The deployment has no events of tests."""
    if scope.tenant is None:
        return sorted(_OF_BOTH | (DEPLOYMENT_TYPES if scope.mode is Mode.LIVE else set()))
    own = set(EventType) - DEPLOYMENT_TYPES - {EventType.WEBHOOK_TEST}
    return sorted({ALL_NOTIFICATIONS, *own})


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where a call goes, and the secrets that sign it, the newest first."""

    url: str = field(repr=False)
    secrets: Sequence[bytes] = field(repr=False)
    is_enabled: bool = True


def new_secret() -> bytes:
    """Return a secret of 256 bits."""
    return secrets.token_bytes(SECRET_BYTES)


def shown_secret(secret: bytes) -> str:
    """Return a secret as Standard Webhooks writes it: `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signatures(keys: Sequence[bytes], message: str, at_s: int, body: bytes) -> str:
    """Return the header `webhook-signature` of Standard Webhooks: a signature for each secret.

    `message` is the header `webhook-id`, `at_s` the header `webhook-timestamp`.
    """
    signed = b"%b.%d.%b" % (message.encode(), at_s, body)
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def call_id(event: UUID, webhook: UUID, at: datetime) -> NotificationId:
    """Return the id of the call of a webhook with an event: always the same one."""
    text = b"webhook/%b/%b" % (event.bytes, webhook.bytes)
    return NotificationId(uuid7_of(at, digest(text).int))


def call_of(
    webhook: UUID,
    scope: WebhookScope,
    id_: NotificationId,
    document: bytes,
    ttl: timedelta,
    *,
    of: NotificationId | None = None,
) -> NewNotification:
    """Return the notification that calls a webhook. `document` is the encoded event.

    Its recipient is the id of the webhook, by which it is always found. `of` is the notification
    that the event shows: an erasure of it finds the call.
    """
    lookups = [Lookup(LookupKind.RECIPIENT, str(webhook))]
    if of is not None:
        lookups.append(event_lookup(of))
    return NewNotification(
        id=id_,
        queue=WEBHOOK_QUEUE,
        recipient=str(webhook),
        content=b'{"%b":%b}' % (WEBHOOK_EVENT.encode(), document),
        metadata=b"{}",
        delay=None,
        ttl=ttl,
        max_tries=None,
        features=NEEDED_TO_CALL,
        tenant=OF_DEPLOYMENT if scope.tenant is None else scope.tenant,
        test_channel=WEBHOOK_CHANNEL if scope.mode is Mode.TEST else "",
        lookups=tuple(lookups),
    )


def event_lookup(notification: NotificationId) -> Lookup:
    """Return by what the calls with events of a notification are found."""
    return Lookup(EVENT_OF, str(notification))


def without_person(content: bytes) -> bytes:
    """Return the content of a call whose notification was erased: the event as it is read then.

    A content that is not of such a call is emptied: the call fails when it is made.
    """
    try:
        document = msgspec.json.decode(content)
        shown = document[WEBHOOK_EVENT]["data"]["notification"]
        shown |= {"recipient": None, "tag": None, "reference": None, "metadata": {}}
        if shown["result"] is not None:
            shown["result"]["detail"] = None
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):  # of a later version
        return b"{}"
    return msgspec.json.encode(document)
