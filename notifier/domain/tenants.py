"""Tenants: whose notifications they are. The default tenant has no name in the database."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NewType

from notifier.domain.senders import Senders

TenantId = NewType("TenantId", str)
"""A tenant as it is stored: its name, or "" for the default tenant."""

DEFAULT_TENANT: Final = TenantId("")
DEFAULT_TENANT_NAME: Final = "default"
TENANT_NAME_EXPECTED: Final = "a name like shop: a-z, 0-9, _ and -, a letter first, at most 64"
NO_TOPICS: Final[Mapping[str, str]] = {}
MAX_TOPICS: Final = 100
MAX_TITLE_LENGTH: Final = 100
TENANT_NAME: Final = r"[a-z][a-z0-9_-]{0,63}"
_NAME: Final = re.compile(TENANT_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant. `note` says in one line what a person wants to remember of it.

    `locale` is that of submits with a template that name none. `topics` has titles by names.
    `rate_per_s` is how many notifications its keys may submit in a second, None: no limit.
    """

    id: TenantId
    note: str
    created_at: datetime
    senders: Senders = field(default_factory=Senders)
    locale: str | None = None
    topics: Mapping[str, str] = field(default_factory=dict)
    rate_per_s: float | None = None

    @property
    def name(self) -> str:
        """Its name, as callers write it."""
        return tenant_name(self.id)


KnownTenants = Mapping[TenantId, Tenant] | None
"""The tenants that exist, by their ids; None if the API asks for no keys: nobody knows then."""


def unknown_tenants(named: Collection[TenantId], known: KnownTenants) -> Collection[TenantId]:
    """Return those of the named tenants that do not exist. The default one always does."""
    if known is None:
        return ()
    return {tenant for tenant in named if tenant != DEFAULT_TENANT and tenant not in known}


def tenant_id(name: str) -> TenantId:
    """Return the tenant with this name. Raises ValueError if it is not a name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"got {name[:64]!r}, expected {TENANT_NAME_EXPECTED}")
    return DEFAULT_TENANT if name == DEFAULT_TENANT_NAME else TenantId(name)


def tenant_name(tenant: TenantId) -> str:
    """Return the name of a tenant, as callers write it."""
    return tenant or DEFAULT_TENANT_NAME
