"""The heartbeat: who lives, what each does, and whether we may still take ourselves for alive.

It never backs off, and outlives the consumers: as long as an attempt runs, its worker lives.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from notifier.delivery.attempt import STALE_S
from notifier.delivery.publish_window import QueueThroughput
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import QueueKey
from notifier.lifecycle import wait
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.cluster.peer_load import PeerLoad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from notifier.domain.breaker import ProviderFigures
    from notifier.domain.notification import WorkerId
    from notifier.ports.heartbeat import Figures, Heartbeat, QueueFigures
    from notifier.ports.observer import MembershipObserver

BEAT_INTERVAL_S: Final = 1.0
MAX_CLOCK_SKEW_S: Final = 5.0
"""A process whose clock is further off Postgres's is not ready: its ids lie about their day."""
LEAVE_WITHIN_S: Final = 2.0
MAX_THROUGHPUT_AGE_S: Final = 0.1

log = structlog.get_logger(__name__)


class Membership:
    """This process among the others: `kind` is `api`, `worker` or `dev`."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        *,
        kind: str,
        host: str,
        pid: int,
        mine: Callable[[], Figures],
        observer: MembershipObserver,
    ) -> None:
        self._heartbeat = heartbeat
        self._kind, self._host, self._pid = kind, host, pid
        self._mine = mine
        self._observer = observer
        self._lost: set[WorkerId] = set()
        self._beat = 0
        self._asked_at = float("-inf")
        self._skew_s = 0.0
        self._living = FailureDetector()
        self._reason = "no heartbeat yet"
        self._arrival = asyncio.Event()
        self._throughput: Mapping[QueueKey, QueueThroughput] = {}
        self._throughput_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Beat every second until `stop`, then remove the row."""
        while not stop.is_set():
            began = time.monotonic()
            await self.run_once()
            await wait(stop, max(0.0, BEAT_INTERVAL_S - (time.monotonic() - began)))
        await self._leave()

    async def run_once(self) -> None:
        """One heartbeat."""
        asked_at = time.monotonic()
        self._beat += 1
        try:
            beaten = await self._heartbeat.beat(
                kind=self._kind,
                host=self._host,
                pid=self._pid,
                beat=self._beat,
                figures=self._mine(),
            )
        except StoreUnavailable as error:
            self._miss(str(error))
            return
        if self._reason:
            log.info("heartbeat_recovered", kind=self._kind)
        self._asked_at, self._reason = asked_at, ""
        self._observer.dependency_answered("postgres", time.monotonic() - asked_at)
        self._living.beaten(beaten.others, time.monotonic())
        self._count_processes()
        self._skew_s = time.time() - beaten.now
        self._arrival.set()
        self._arrival = asyncio.Event()

    def _miss(self, reason: str) -> None:
        if reason != self._reason:
            log.warning("heartbeat_failed", reason=reason)
        self._reason = reason
        self._observer.dependency_unavailable("postgres")
        self._living.missed()

    def _count_processes(self) -> None:
        lost = self._living.lost()
        self._observer.processes_died(len(lost - self._lost))
        self._lost = lost
        everyones = (self._mine().queues, *self.others())
        self._observer.workers_counted(sum(_consumers(queues) > 0 for queues in everyones))

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self._heartbeat.leave()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("heartbeat_row_not_deleted", reason=str(error))

    # ---- what the rest of the process asks ------------------------------------------------------

    def is_alive(self) -> bool:
        """As ports.Pulse says."""
        return time.monotonic() - self._asked_at <= STALE_S

    async def wait_until_alive(self) -> None:
        """As ports.Pulse says."""
        while not self.is_alive():
            await self._arrival.wait()

    def is_registered(self) -> bool:
        """Whether this process has its row, without which nobody would see that it died."""
        return self._asked_at > float("-inf")

    def why_not_ready(self) -> Iterator[str]:
        """What keeps this process from being ready, as far as Postgres goes."""
        if not self.is_alive():
            yield f"postgres: {self._reason or 'no answer'}"
        elif abs(self._skew_s) > MAX_CLOCK_SKEW_S:
            limit = f"at most {MAX_CLOCK_SKEW_S:g} s allowed"
            yield f"clock: {self._skew_s:+.1f} s off Postgres, {limit}"

    def silent(self) -> Sequence[tuple[WorkerId, int]]:
        """The other processes that are dead and have a row, each with its last counter."""
        return self._living.silent()

    def others(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        """What the other living processes say of the queues."""
        return [other.queues for other in self._living.others()]

    def relay_count(self) -> int:
        """How many relays the deployment has: every process runs one."""
        return 1 + len(self.others())

    def share(self) -> float:
        """This process's part of all consumers of the deployment; 1 when it has them all."""
        mine = _consumers(self._mine().queues)
        everyones = mine + sum(_consumers(queues) for queues in self.others())
        return mine / everyones if mine else 1.0

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        """Per queue, what the other living processes hold and do."""
        held, done = Counter[QueueKey](), dict[QueueKey, float]()
        for queues in self.others():
            for queue, figures in queues.items():
                held[queue] += figures.held
                done[queue] = done.get(queue, 0.0) + figures.done_per_s
        return {queue: PeerLoad(held[queue], per_s) for queue, per_s in done.items()}

    def providers(self) -> Sequence[Mapping[str, ProviderFigures]]:
        """What every living process says of the providers, this one first."""
        return [self._mine().providers, *(other.providers for other in self._living.others())]

    def figures(self) -> Mapping[QueueKey, Sequence[QueueFigures]]:
        """Per queue, what every living process says of it, this one first."""
        said: dict[QueueKey, list[QueueFigures]] = {}
        for queues in (self._mine().queues, *self.others()):
            for queue, figures in queues.items():
                said.setdefault(queue, []).append(figures)
        return said

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        """What the deployment does with each queue, for the relays; made anew every 100 ms."""
        now = time.monotonic()
        if now - self._throughput_at >= MAX_THROUGHPUT_AGE_S:
            self._throughput_at = now
            self._throughput = {
                queue: QueueThroughput(
                    consumers=sum(one.consumers for one in said),
                    drain_per_s=sum(one.done_per_s for one in said),
                )
                for queue, said in self.figures().items()
            }
        return self._throughput


def _consumers(queues: Mapping[QueueKey, QueueFigures]) -> int:
    return sum(figures.consumers for figures in queues.values())
