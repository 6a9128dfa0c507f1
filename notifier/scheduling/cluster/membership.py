"""The heartbeat loop: reports that this process is alive and reads which others are.

The loop never backs off and runs until the consumers have ended: while an attempt runs, its process
counts as alive.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.liveness import (
    BEAT_INTERVAL_S,
    BEAT_TIMEOUT_S,
    SENDING_KINDS,
    STALE_AFTER_S,
)
from notifier.lifecycle import uptime_s, wait
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.cluster.worker_features import WorkerFeatures

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from notifier.domain.notification import WorkerId
    from notifier.ports.heartbeat import DeadProcess, FigureSource, Heartbeat, HeartbeatReply
    from notifier.ports.observer import MembershipObserver

MAX_CLOCK_SKEW_S: Final = 5.0
"""With a larger difference to Postgres's clock a process is not ready: its ids are made from its
clock and would belong to another day than their rows."""

NO_HEARTBEAT_YET: Final = "no heartbeat yet"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """The identity that the heartbeat row shows. `kind` is `api`, `worker` or `dev`."""

    id: WorkerId
    kind: str
    host: str
    pid: int


class Membership(ClusterFigures):
    """This process as a member of the deployment, with the figures of all members.

    Implements ports.heartbeat.Liveness, DeadProcesses, LiveWorkers and Departures.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        *,
        identity: ProcessIdentity,
        own: FigureSource,
        observer: MembershipObserver,
    ) -> None:
        super().__init__(own=own, detector=FailureDetector())
        self._heartbeat = heartbeat
        self._identity = identity
        self._observer = observer
        self.features = WorkerFeatures(observer)
        self._observed_deaths: set[WorkerId] = set()
        self._beat = 0
        self._requested_at = float("-inf")
        self._skew_s = 0.0
        self._failure = NO_HEARTBEAT_YET
        self._refusal = ""
        self._succeeded = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Send a heartbeat every second until `stop`, then delete the row."""
        while not stop.is_set():
            began = time.monotonic()
            await self.run_once()
            await wait(stop, max(0.0, BEAT_INTERVAL_S - (time.monotonic() - began)))
        await self._leave()

    async def run_once(self) -> None:
        """Send one heartbeat. A failure is logged and not raised."""
        requested_at = uptime_s()
        self._beat += 1
        try:
            reply = await self._heartbeat.beat(
                kind=self._identity.kind,
                host=self._identity.host,
                pid=self._identity.pid,
                beat=self._beat,
                figures=self._own.figures(),
            )
        except StoreError as error:
            self._note_failure(str(error))
        else:
            self._note_success(reply, requested_at)

    def _note_success(self, reply: HeartbeatReply, requested_at: float) -> None:
        if self._failure not in ("", NO_HEARTBEAT_YET):
            log.info("heartbeat_recovered", kind=self._identity.kind)
        self._requested_at, self._failure = requested_at, ""
        self._observer.dependency_answered("postgres", uptime_s() - requested_at)
        self._detector.beat_succeeded(reply.others, time.monotonic())
        self.features.beat_succeeded(reply.others)
        self._report_processes()
        self._note_refusal(reply.refusal)
        self._skew_s = time.time() - reply.now
        self._succeeded.set()
        self._succeeded = asyncio.Event()

    def _note_refusal(self, refusal: str) -> None:
        if refusal != self._refusal:
            if refusal:
                log.error("database_access_lost", reason=refusal)
            else:
                log.info("database_access_restored")
        self._refusal = refusal

    def _note_failure(self, reason: str) -> None:
        if reason != self._failure:
            log.warning("heartbeat_failed", reason=reason)
        self._failure = reason
        self._observer.dependency_unavailable("postgres")
        self._detector.beat_failed()

    def _report_processes(self) -> None:
        observed = self._detector.observed_deaths()
        self._observer.processes_died(len(observed - self._observed_deaths))
        self._observed_deaths = observed
        self._observer.workers_counted(self.workers())

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(BEAT_TIMEOUT_S):
                await self._heartbeat.leave()
        except (StoreError, TimeoutError) as error:
            log.warning("heartbeat_row_not_deleted", reason=str(error) or type(error).__name__)

    def is_alive(self) -> bool:
        """Whether the last successful heartbeat was requested at most STALE_AFTER_S ago.

        A process to which Postgres refuses some work counts as alive for its peers, but not here:
        it could not record what it sends.
        """
        return not self._refusal and uptime_s() - self._requested_at <= STALE_AFTER_S

    async def wait_until_alive(self) -> None:
        """Return at once while alive, otherwise after the next successful heartbeat."""
        while not self.is_alive():
            await self._succeeded.wait()

    def is_registered(self) -> bool:
        """Whether this process has a row: without one its death would go unnoticed."""
        return self._requested_at > float("-inf")

    def dead(self) -> Sequence[DeadProcess]:
        """The other processes that are dead and still have a row."""
        return self._detector.dead()

    def live_workers(self) -> Collection[WorkerId]:
        """The live workers that do not drain, this process included if it has a heartbeat row."""
        others = [
            peer.id
            for peer in self._detector.live()
            if peer.kind in SENDING_KINDS and not peer.is_draining
        ]
        is_one = (
            self._identity.kind in SENDING_KINDS
            and self.is_registered()
            and not self._own.is_draining
        )
        return [self._identity.id, *others] if is_one else others

    def beating_workers(self) -> Collection[WorkerId]:
        """Those of the other live workers whose heartbeats came up to now."""
        return self._detector.beating().intersection(self.live_workers())

    @property
    def departures(self) -> int:
        """How often another process has left since the start of this one."""
        return self._detector.departures

    def has_left(self, process: WorkerId) -> bool:
        """Whether a process is dead or had no row at the last heartbeat. False for this process.

        Before the first heartbeat nothing is known, and no process has left.
        """
        is_other = process != self._identity.id
        return self.is_registered() and is_other and self._detector.has_left(process)

    def why_not_ready(self) -> Iterator[str]:
        """What keeps this process from being ready, one sentence each; Postgres and clock only."""
        if self._refusal and not self._failure:
            yield self._refusal
        elif not self.is_alive():
            yield f"postgres: {self._failure or 'no answer'}"
        elif abs(self._skew_s) > MAX_CLOCK_SKEW_S:
            limit = f"at most {MAX_CLOCK_SKEW_S:g} s allowed"
            yield f"clock: {self._skew_s:+.1f} s off Postgres, {limit}"
