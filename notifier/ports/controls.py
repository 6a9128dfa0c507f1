"""Pauses and breakers, shared by all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from notifier.domain.controls import Controls, Pause, Scope, SendPermission
from notifier.domain.holds import Holds
from notifier.domain.notification import QueueKey
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import TenantId
from notifier.ports.keys import Author


class ControlReader(Protocol):
    """Reads pauses and breakers and waits for their changes."""

    async def read(self) -> Controls:
        """All pauses that have not expired, and all breakers. Raises StoreUnavailable."""
        ...

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when some process changed something, or after `timeout_s`.

        Also returns when a lost connection is restored: a change may have been missed. Raises
        nothing, also while Postgres is unreachable. For one caller at a time.
        """
        ...


class BreakerStore(Protocol):
    """Changes breakers by compare-and-set; each method returns whether the change was made.

    All processes are notified of a change when it commits. Raises StoreUnavailable.
    """

    async def open_breaker(self, provider: str, reason: str, *, code: str, wait_s: float) -> bool:
        """Closed, or without a row -> open; the first probe is allowed after `wait_s`."""
        ...

    async def hold_probe(self, provider: str, hold_s: float) -> bool:
        """Open and due for a probe, or half-open and its hold expired -> half-open, held by us.

        The hold expires after `hold_s`: then another process may take the probe.
        """
        ...

    async def reopen_breaker(
        self, provider: str, *, reason: str, code: str, base_s: float, min_wait_s: float
    ) -> bool:
        """Half-open and held by this process -> open.

        The wait for the next probe is `base_s` doubled for each opening in a row, at most 60 s, but
        at least `min_wait_s`.
        """
        ...

    async def close_answered(self, provider: str, reason: str) -> bool:
        """Open for this reason, probing or not -> closed: a call was accepted after all."""
        ...

    async def close_breaker(self, provider: str) -> bool:
        """Half-open and held by this process -> closed."""
        ...


class PauseStore(Protocol):
    """Begins and ends pauses. All processes are notified. Raises StoreUnavailable."""

    async def pause(
        self, scope: Scope, *, note: str, for_s: float | None, author: Author | None = None
    ) -> Pause:
        """Begin a pause, or give an existing one a new note and end; None: until resumed.

        What an `author` does is noted in the audit.
        """
        ...

    async def resume(self, scope: Scope, author: Author | None = None) -> bool:
        """End a pause; False if there was none."""
        ...


class ProbeStore(Protocol):
    """Lets people ask for probes. All processes are notified. Raises StoreUnavailable."""

    async def probe_now(self, provider: str, note: str, author: Author) -> bool:
        """Make the probe of an open breaker due at once; False if no breaker waits for one."""
        ...


class QuietHoursStore(Protocol):
    """Keeps the quiet hours of tenants. All processes are notified. Raises StoreUnavailable."""

    async def quiet_hours(self) -> Mapping[TenantId, QuietHours]:
        """Return the quiet hours of all tenants that have some."""
        ...

    async def put_quiet_hours(self, tenant: TenantId, hours: QuietHours, author: Author) -> bool:
        """Store the quiet hours of a tenant; False if there is no such tenant."""
        ...

    async def delete_quiet_hours(self, tenant: TenantId, author: Author) -> bool:
        """Remove the quiet hours of a tenant; False if it had none."""
        ...


class HoldSource(Protocol):
    """Knows what single notifications may not be sent now."""

    def holds(self) -> Holds:
        """Return the holds as of the last read."""
        ...


class Permissions(Protocol):
    """What this process may send now, by pauses and breakers."""

    def permission(self, queue: QueueKey) -> SendPermission:
        """What this process may do with the queue now."""
        ...
