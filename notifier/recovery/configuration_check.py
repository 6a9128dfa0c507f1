"""The configuration check: names what the database has and the settings do not.

Rows of a channel that was removed are sent by no worker and expire; a pause of a provider that was
renamed stops nothing. The check also reads the deployment's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.controls import Pause
    from notifier.domain.deployment_id import DeploymentId
    from notifier.domain.notification import QueueKey
    from notifier.ports.observer import ConfigurationObserver
    from notifier.ports.store import ConfigurationStore

CONFIGURATION_CHECK_INTERVAL_S: Final = 30.0

log = structlog.get_logger(__name__)


class ConfiguredNames(Protocol):
    """What the settings name; implemented by scheduling.gates.queue_gates.QueueGates."""

    @property
    def queues(self) -> Sequence[QueueKey]:
        """Every channel at every priority."""
        ...

    def unmatched_pauses(self) -> Sequence[Pause]:
        """The pauses whose queue, channel or provider the settings do not have."""
        ...


class ConfigurationCheck:
    """Every process runs one. It changes nothing but `deployment`, which it fills in."""

    def __init__(
        self,
        *,
        store: ConfigurationStore,
        names: ConfiguredNames,
        deployment: DeploymentId,
        observer: ConfigurationObserver,
    ) -> None:
        self._store = store
        self._names = names
        self._deployment = deployment
        self._observer = observer
        self._logged: set[str] = set()

    async def run_once(self) -> None:
        """Report what the settings do not name; each thing is logged once while it lasts."""
        try:
            self._deployment.value = await self._store.deployment_id()
            queues = await self._store.unconfigured(self._names.queues)
        except StoreError as error:
            log.debug("configuration_check_failed", reason=str(error))
            return
        pauses = self._names.unmatched_pauses()
        self._observer.unconfigured_counted(
            notifications=sum(queue.waiting + queue.sending for queue in queues),
            pauses=len(pauses),
        )
        for queue in queues:
            if self._is_new(f"queue {queue.queue}"):
                log.error(
                    "unconfigured_queue_found",
                    queue=queue.queue,
                    waiting=queue.waiting,
                    sending=queue.sending,
                    is_exact=queue.is_exact,
                )
        for pause in pauses:
            if self._is_new(f"pause {pause.scope}"):
                log.error("unmatched_pause_found", kind=pause.scope.kind, name=pause.scope.name)
        self._logged &= {f"queue {queue.queue}" for queue in queues} | {
            f"pause {pause.scope}" for pause in pauses
        }

    def _is_new(self, name: str) -> bool:
        is_new = name not in self._logged
        self._logged.add(name)
        return is_new
