"""The audit: what people did, in the words of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from notifier.domain.tenants import TenantId

SYSTEM: Final = "system"
"""The actor of what Notifier did by itself, because the settings say so."""
ANONYMOUS: Final = "anonymous"
"""The actor of a request without a key, where the API asks for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a person did. `tenant` None: it concerns the deployment.

    `actor` is `key:ID`, `cli:user@host`, ANONYMOUS or SYSTEM; `name` is like `key.created`,
    `target` like `key:ID`. `before` and `after` are the documents of the target, without secrets.
    """

    actor: str
    name: str
    target: str
    tenant: TenantId | None = None
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    note: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An action, with its number and its time by Postgres's clock."""

    id: UUID
    at: datetime
    action: Action
