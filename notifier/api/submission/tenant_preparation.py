"""Makes of a stored submit what its tenant would submit now: of a schedule, or of a fallback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED
from notifier.api.submission.preparing import check_mode
from notifier.api.submission.validation import Sender
from notifier.domain.errors import InvalidNotification
from notifier.domain.tenants import unknown_tenants

if TYPE_CHECKING:
    from notifier.api.auth.keyring import Keyring
    from notifier.api.rules import ApiRules
    from notifier.api.submission.preparing import SubmitPreparation
    from notifier.domain.credentials import Mode
    from notifier.domain.notification import NewNotification
    from notifier.domain.tenants import TenantId


class TenantPreparation:
    """Prepares stored submits. Without a keyring nobody knows the tenants."""

    def __init__(
        self, *, preparation: SubmitPreparation, keyring: Keyring | None, rules: ApiRules
    ) -> None:
        self._preparation = preparation
        self._keyring = keyring
        self._rules = rules

    async def prepare(self, document: bytes, tenant: TenantId, mode: Mode) -> NewNotification:
        """Return the notification. Raises as SubmitPreparation.prepare, also for its tenant."""
        check_mode(mode, self._rules)
        tenants = None if self._keyring is None else await self._keyring.tenants([tenant])
        if unknown_tenants([tenant], tenants):
            raise InvalidNotification("tenant", KNOWN_TENANT_EXPECTED)
        return await self._preparation.prepare(document, Sender(tenant, mode, tenants))
