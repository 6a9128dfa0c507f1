"""What is paused and what is open, as this process knows it: told by Postgres, within a second.

While Postgres is away the last read holds: a pause is not forgotten. Before the first read nothing
is known and every queue counts as paused: a process that starts sends nothing into a pause.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.domain.controls import Controls, SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.scheduling.gates.permissions import Probing, aged, next_end_s, permission_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from notifier.domain.notification import Channel, QueueKey
    from notifier.lifecycle import Clock

READ_INTERVAL_S: Final = 0.8
"""A change whose notice was lost is still known within a second."""
LEAST_REST_S: Final = 0.01

log = structlog.get_logger(__name__)


class ControlReader(Protocol):
    """The half of a ports.controls.ControlStore that is asked here; see there."""

    async def read(self) -> Controls: ...
    async def changed(self, within_s: float) -> None: ...


class QueueGates:
    """Asked by everything that may send. `probing` is set by whoever sends probes.

    `providers` are the channels' ways to send.
    """

    def __init__(
        self,
        store: ControlReader,
        *,
        queues: Sequence[QueueKey],
        providers: Mapping[Channel, Sequence[str]],
        clock: Clock = time.monotonic,
    ) -> None:
        self.providers = providers
        self.probing: Probing = _nothing
        self._store = store
        self._clock = clock
        self._last: Controls | None = None
        self._read_at = 0.0
        self._reason = ""
        self._permissions = dict.fromkeys(queues, SendPermission.PAUSED)
        self._callbacks: list[Callable[[], None]] = []
        self._readers: list[Callable[[Controls], None]] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Follow Postgres until `stop`."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(stop), name="controls follow")
            await stop.wait()
            following.cancel()

    async def _follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.run_once()
            ends_in_s = max(LEAST_REST_S, next_end_s(self.snapshot()))
            await self._store.changed(min(READ_INTERVAL_S, ends_in_s))
            self.review()  # before the read, which may take long: a pause ends on time

    async def run_once(self) -> None:
        """One read; if there is no answer, the last one holds."""
        try:
            await self.refresh()
        except StoreUnavailable as error:
            self._miss(str(error))

    async def refresh(self) -> Controls:
        """What holds now, by Postgres. Raises StoreUnavailable."""
        self._last = await self._store.read()
        self._read_at = self._clock()
        if self._reason:
            log.info("controls_read_recovered")
        self._reason = ""
        for tell in self._readers:
            tell(self._last)
        self.review()
        return self._last

    def _miss(self, reason: str) -> None:
        if not self._reason:
            log.warning("controls_read_failed", reason=reason, is_known=self._last is not None)
        self._reason = reason

    # ---- what the rest of the process asks ------------------------------------------------------

    def snapshot(self) -> Controls:
        """What holds now as far as this process knows, all spans as of now."""
        if self._last is None:
            return Controls()
        return aged(self._last, self._clock() - self._read_at)

    def permission(self, queue: QueueKey) -> SendPermission:
        """What this process may do with the queue now; PAUSED before the first read."""
        if self._last is None:
            return SendPermission.PAUSED
        if not self._last.pauses and not self._last.breakers:
            return SendPermission.ALLOWED
        return self._permission(self.snapshot(), queue)

    def _permission(self, controls: Controls, queue: QueueKey) -> SendPermission:
        return permission_of(controls, queue, self.providers.get(queue.channel, ()), self.probing)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it whenever the flow of some queue has changed; it must not block."""
        self._callbacks.append(callback)

    def on_read(self, callback: Callable[[Controls], None]) -> None:
        """Call it with what each read brought."""
        self._readers.append(callback)

    def review(self) -> None:
        """Tell of the flows that have changed; to be called when `probing` answers anew."""
        permissions = {queue: self.permission(queue) for queue in self._permissions}
        changed = {
            queue: permission
            for queue, permission in permissions.items()
            if permission != self._permissions[queue]
        }
        if not changed:
            return
        self._permissions = permissions
        log.info("permissions_changed", **_by_flow(changed))
        for callback in self._callbacks:
            callback()


def _by_flow(permissions: Mapping[QueueKey, SendPermission]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for queue, permission in permissions.items():
        named.setdefault(permission.value, []).append(str(queue))
    return named


def _nothing(provider: str) -> QueueKey | None:
    del provider
    return None
