"""Names of tenants in bodies and paths."""

from __future__ import annotations

from typing import Final

from notifier.domain.errors import InvalidNotification
from notifier.domain.tenants import TENANT_NAME_EXPECTED, TenantId, tenant_id

KNOWN_TENANT_EXPECTED: Final = "a tenant that exists: PUT /v1/tenants/NAME"


def checked_tenant(name: str) -> TenantId:
    """Returns the tenant with this name. Raises InvalidNotification for the field `tenant`."""
    try:
        return tenant_id(name)
    except ValueError as error:
        raise InvalidNotification("tenant", TENANT_NAME_EXPECTED) from error
