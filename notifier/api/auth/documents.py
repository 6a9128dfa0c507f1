"""Documents of keys, tenants, the session and the audit. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import (
    NO_CONTROL_CHARACTERS,
    Instant,
    Note,
    NullableObject,
    TenantName,
)
from notifier.domain import audit, keys, tenants
from notifier.domain.credentials import Credential, KeyId, Mode
from notifier.domain.key_rate import MAX_RATE_PER_S, MIN_RATE_PER_S
from notifier.domain.keys import KeyScope
from notifier.domain.mailbox import MAX_TEXT_LENGTH
from notifier.domain.senders import MAX_SENDERS
from notifier.domain.suppressions import TOPIC
from notifier.domain.templates import LOCALE
from notifier.domain.tenants import MAX_TITLE_LENGTH, MAX_TOPICS, tenant_name

Sender = Annotated[
    str,
    Meta(max_length=MAX_TEXT_LENGTH, examples=["Shop <no-reply@shop.example>", "shop.example"]),
]
LocaleTag = Annotated[str, Meta(extra_json_schema={"pattern": f"^{LOCALE}$"})]
TopicName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{TOPIC}$"})]
Title = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_TITLE_LENGTH,
        extra_json_schema={"pattern": NO_CONTROL_CHARACTERS},
    ),
]
Rate = Annotated[float, Meta(ge=MIN_RATE_PER_S, le=MAX_RATE_PER_S)]


class KeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make.

    Without `tenant` it belongs to the tenant of the key that makes it; a deployment key makes
    another deployment key.
    """

    scopes: Annotated[tuple[KeyScope, ...], Meta(min_length=1, max_length=len(KeyScope))]
    tenant: TenantName | None = None
    mode: Mode = Mode.LIVE
    rate_per_s: Annotated[
        Rate | None,
        Meta(
            description="Notifications and other calls a second, at most the rate of the key that "
            "makes it. Absent: that rate, or no limit if it has none."
        ),
    ] = None
    note: Note = ""
    expires_at: Annotated[Instant | None, Meta(description="Absent: never.")] = None


class Key(msgspec.Struct):
    """A key, without its secret. `tenant` is null for a deployment key."""

    id: KeyId
    tenant: str | None
    mode: Mode
    scopes: Sequence[KeyScope]
    rate_per_s: float | None
    note: str | None
    created_at: Instant
    created_by: str
    expires_at: Instant | None
    last_used_at: Instant | None

    @classmethod
    def of(cls, key: keys.Key) -> Key:
        """Builds the document of a key."""
        return cls(
            id=key.id,
            tenant=None if key.tenant is None else tenant_name(key.tenant),
            mode=key.mode,
            scopes=key.scopes,
            rate_per_s=key.rate_per_s,
            note=key.note or None,
            created_at=key.created_at,
            created_by=key.created_by,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
        )


class CreatedKey(Key):
    """A key that was just made. `secret` is the whole key, shown this once."""

    secret: str

    @classmethod
    def of_new(cls, key: keys.Key, credential: Credential) -> CreatedKey:
        """Builds the document of a new key."""
        return cls(**msgspec.structs.asdict(Key.of(key)), secret=credential.text)


class KeyPage(msgspec.Struct):
    """Keys, the oldest first. `next_cursor` is null on the last page."""

    items: Sequence[Key]
    next_cursor: str | None = None


class TenantRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A tenant to make, or all settings of one to change: what is absent is reset."""

    note: Note = ""
    senders: Annotated[
        tuple[Sender, ...],
        Meta(
            max_length=MAX_SENDERS,
            description="What `from` may be: addresses, domains, and senders of text messages. The "
            "first of each kind is the default. Without any, a tenant but the default one gives no "
            "`from`.",
        ),
    ] = ()
    locale: Annotated[
        LocaleTag | None,
        Meta(description="Of submits with a template that name none. Absent: the template's."),
    ] = None
    topics: Annotated[
        dict[TopicName, Title],
        Meta(
            max_length=MAX_TOPICS, description="The titles of topics, for the page to unsubscribe."
        ),
    ] = {}
    rate_per_s: Annotated[
        Rate | None,
        Meta(
            description="Notifications that all keys of the tenant may submit in a second. Live "
            "and test keys are counted apart, keys of the deployment are not. Absent: no limit."
        ),
    ] = None


class Tenant(msgspec.Struct):
    """A tenant."""

    name: str
    note: str | None
    created_at: Instant
    senders: Sequence[str] = ()
    locale: str | None = None
    topics: dict[str, str] = {}
    rate_per_s: float | None = None

    @classmethod
    def of(cls, tenant: tenants.Tenant) -> Tenant:
        """Builds the document of a tenant."""
        return cls(
            name=tenant.name,
            note=tenant.note or None,
            created_at=tenant.created_at,
            senders=tenant.senders.texts,
            locale=tenant.locale,
            topics=dict(tenant.topics),
            rate_per_s=tenant.rate_per_s,
        )


class TenantPage(msgspec.Struct):
    """Tenants by name, with the default one. `next_cursor` is null on the last page."""

    items: Sequence[Tenant]
    next_cursor: str | None = None


class AuditEntry(msgspec.Struct):
    """What a person did. `tenant` is null if it concerns the deployment."""

    id: UUID
    at: Instant
    tenant: str | None
    actor: str
    action: str
    target: str
    before: NullableObject
    after: NullableObject
    note: str | None
    request_id: str | None

    @classmethod
    def of(cls, entry: audit.AuditEntry) -> AuditEntry:
        """Builds the document of an entry."""
        action = entry.action
        return cls(
            id=entry.id,
            at=entry.at,
            tenant=None if action.tenant is None else tenant_name(action.tenant),
            actor=action.actor,
            action=action.name,
            target=action.target,
            before=None if action.before is None else dict(action.before),
            after=None if action.after is None else dict(action.after),
            note=action.note or None,
            request_id=action.request_id or None,
        )


class AuditPage(msgspec.Struct):
    """Entries of the audit, newest first."""

    items: Sequence[AuditEntry]
    next_cursor: str | None


class SessionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The key with which a session begins."""

    key: Annotated[str, Meta(max_length=200)]


class Session(msgspec.Struct):
    """Who makes a request. `key` is the id of the key, null if the API asks for none."""

    key: KeyId | None
    tenant: str | None
    scopes: Sequence[KeyScope]
    mode: Mode
