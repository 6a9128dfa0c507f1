"""What each queue may do, as this process knows it: read from Postgres at least every second.

While Postgres is unreachable the last read stays in force: a pause is not forgotten. Before the
first read every queue counts as paused, so that a process that starts sends nothing into a pause.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.domain.controls import (
    BreakerState,
    Controls,
    ScopeKind,
    SendPermission,
    is_configured,
)
from notifier.domain.errors import StoreError
from notifier.domain.holds import Holds
from notifier.scheduling.gates.permissions import aged, next_expiry_s, permission_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from notifier.domain.controls import Pause, Scope
    from notifier.domain.notification import Channel, QueueKey
    from notifier.lifecycle import Clock
    from notifier.ports.controls import ControlReader
    from notifier.ports.observer import BreakerObserver
    from notifier.scheduling.gates.probes import Probes

READ_INTERVAL_S: Final = 0.8
"""A change whose notification was lost is still seen within a second."""
MIN_WAIT_S: Final = 0.01

log = structlog.get_logger(__name__)


class PermissionListener(Protocol):
    """Is called when the permission of some queue has changed."""

    def permissions_changed(self) -> None:
        """Read the permissions again. Must not block."""
        ...


class HoldListener(Protocol):
    """Is called when a tenant or tag has been paused."""

    def holds_added(self) -> None:
        """Send nothing that was claimed before without knowing whose it is. Must not block."""
        ...


class QueueGates:
    """Implements ports.controls.Permissions and HoldSource: asked before anything is sent.

    `providers` are the names of each channel's providers. `probes` are this process's own; the
    prober, which changes them, calls `review`.
    """

    def __init__(
        self,
        store: ControlReader,
        *,
        queues: Sequence[QueueKey],
        providers: Mapping[Channel, Sequence[str]],
        probes: Probes,
        observer: BreakerObserver,
        clock: Clock = time.monotonic,
    ) -> None:
        self.queues = queues
        self.providers = providers
        self.provider_names = sorted({name for names in providers.values() for name in names})
        self.probes = probes
        self._store = store
        self._observer = observer
        self._clock = clock
        self._last: Controls | None = None
        self._read_at = 0.0
        self._failure = ""
        self._permissions = dict.fromkeys(queues, SendPermission.PAUSED)
        self._holds = Holds()
        self.has_ended_hold = False
        """Whether a pause of a tag or tenant has ended; recovery.waker resets it."""
        self._listeners: list[PermissionListener] = []
        self._hold_listeners: list[HoldListener] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the changes in Postgres until `stop`."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(stop), name="controls follow")
            await stop.wait()
            following.cancel()

    async def _follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.run_once()
            expires_in_s = max(MIN_WAIT_S, next_expiry_s(self.snapshot()))
            await self._store.wait_for_change(min(READ_INTERVAL_S, expires_in_s))
            self.review()  # before the read, which may take long: a pause ends on time

    async def run_once(self) -> None:
        """Read once. If that fails the last read stays in force."""
        try:
            await self.refresh()
        except StoreError as error:
            self._note_failure(str(error))

    async def refresh(self) -> Controls:
        """Read the pauses and breakers and return them. Raises StoreUnavailable."""
        self._last = await self._store.read()
        self._read_at = self._clock()
        self._change_holds(Holds.of(self._last))
        if self._failure:
            log.info("controls_read_recovered")
        self._failure = ""
        self._report_breakers(self._last)
        self.review()
        return self._last

    def _change_holds(self, holds: Holds) -> None:
        before, now = self._holds.scopes, holds.scopes
        if before != now:
            log.info("holds_changed", holds=sorted(map(str, now)))
        self.has_ended_hold = self.has_ended_hold or not before <= now
        self._holds = holds
        if not now <= before:
            for listener in self._hold_listeners:
                listener.holds_added()

    def _note_failure(self, reason: str) -> None:
        if not self._failure:
            log.warning("controls_read_failed", reason=reason, is_known=self._last is not None)
        self._failure = reason

    def _report_breakers(self, controls: Controls) -> None:
        """Every process reports the same states, whether or not it sends."""
        breakers = {breaker.provider: breaker for breaker in controls.breakers}
        for name in self.provider_names:
            breaker = breakers.get(name)
            self._observer.breaker_changed(
                name,
                breaker.state if breaker else BreakerState.CLOSED,
                breaker.reason if breaker else "",
            )

    def snapshot(self) -> Controls:
        """The last read, with all spans as of now; empty before the first."""
        if self._last is None:
            return Controls()
        return aged(self._last, self._clock() - self._read_at)

    def permission(self, queue: QueueKey) -> SendPermission:
        """What this process may do with the queue now; PAUSED before the first read."""
        if self._last is None:
            return SendPermission.PAUSED
        if not self._last.pauses and not self._last.breakers:
            return SendPermission.ALLOWED
        providers = self.providers.get(queue.channel, ())
        return permission_of(self.snapshot(), queue, providers, self.probes.queues())

    def holds(self) -> Holds:
        """What single notifications may not be sent now, as of the last read."""
        return self._holds

    def opening(self, provider: str) -> str:
        """Why the provider's breaker is not closed, as of the last read; empty if it is closed."""
        for breaker in self._last.breakers if self._last else ():
            if breaker.provider == provider and breaker.state is not BreakerState.CLOSED:
                return breaker.reason
        return ""

    def unpaused_queues(self, provider: str) -> Sequence[QueueKey]:
        """The queues that send through the provider and are not paused, the most urgent first."""
        return [
            queue
            for queue in sorted(self.queues, key=_urgency)
            if provider in self.providers.get(queue.channel, ())
            and self.permission(queue) is not SendPermission.PAUSED
        ]

    def add_listener(self, listener: PermissionListener) -> None:
        """Call the listener whenever the permission of some queue has changed."""
        self._listeners.append(listener)

    def add_hold_listener(self, listener: HoldListener) -> None:
        """Call the listener whenever a tenant or tag has been paused."""
        self._hold_listeners.append(listener)

    def unmatched_pauses(self) -> Sequence[Pause]:
        """The pauses whose queue, channel or provider the settings do not have.

        Tags and tenants are not in the settings.
        """
        return [pause for pause in self.snapshot().pauses if not self.is_configured(pause.scope)]

    def is_configured(self, scope: Scope) -> bool:
        """Whether the settings have the queue, channel or provider of a pause."""
        names: Mapping[ScopeKind, Collection[str]] = {
            ScopeKind.QUEUE: {str(queue) for queue in self.queues},
            ScopeKind.CHANNEL: self.providers.keys(),
            ScopeKind.PROVIDER: self.provider_names,
        }
        return is_configured(scope, names)

    def review(self) -> None:
        """Compute all permissions and call the listeners if one has changed."""
        permissions = {queue: self.permission(queue) for queue in self._permissions}
        changed = {
            queue: permission
            for queue, permission in permissions.items()
            if permission != self._permissions[queue]
        }
        if not changed:
            return
        self._permissions = permissions
        log.info("permissions_changed", **_by_permission(changed))
        for listener in self._listeners:
            listener.permissions_changed()


def _urgency(queue: QueueKey) -> tuple[int, str]:
    return queue.priority.rank, queue.channel


def _by_permission(permissions: Mapping[QueueKey, SendPermission]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for queue, permission in permissions.items():
        grouped.setdefault(permission.value, []).append(str(queue))
    return grouped
