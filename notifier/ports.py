"""What the core needs from the world: narrow protocols. Adapters implement them, app wires them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from notifier.domain.breaker import ProviderFigures
from notifier.domain.controls import Controls, Scope
from notifier.domain.errors import StoreRejected
from notifier.domain.notification import (
    Channel,
    Claimed,
    FailureView,
    NewNotification,
    NotificationId,
    NotificationView,
    QueueKey,
    Status,
    WorkerId,
)
from notifier.domain.outcome import Outcome

# ---- broker -------------------------------------------------------------------------------------


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """All that ever enters the broker: which row, at which claim, published when.

    `published_at` is the database's instant of the publish, in seconds since the epoch.
    """

    queue: QueueKey
    id: NotificationId
    claim: int
    published_at: float


@dataclass(frozen=True, slots=True)
class Depth:
    """What a broker says of one queue, in pointers: about so many, if messages carry several.

    `ready` excludes what consumers already hold.
    """

    ready: int
    consumers: int


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """One pointer handed to a subscription. Compared by identity.

    `tag` belongs to the broker. `redelivered` says that somebody held it before.
    """

    pointer: Pointer
    redelivered: bool
    tag: object


class Subscription(Protocol):
    """One process's hold on one queue. Survives the loss of the broker by itself."""

    async def set_prefetch(self, prefetch: int) -> None:
        """Hold about `prefetch` unacked pointers; 0 ends the subscription on the broker.

        What is already held stays held. Returns when the broker has confirmed, or at once while
        the broker is away (it then takes effect at the reconnect).
        """
        ...

    @property
    def held_most(self) -> int:
        """How many unacked pointers the prefetch comes to: more, where messages carry several."""
        ...

    def ack(self, delivery: Delivery) -> None:
        """Settle a pointer. Does nothing if it came over a connection that is gone."""
        ...


ONE_EACH: Final[Mapping[QueueKey, int]] = MappingProxyType({})


class Broker(Protocol):
    """RabbitMQ, or the in-process stand-in for `notifier dev`."""

    async def publish(
        self, pointers: Sequence[Pointer], together: Mapping[QueueKey, int] = ONE_EACH
    ) -> Sequence[bool]:
        """Publish all; for each, whether the broker confirmed that it is safely in its queue.

        At most `together` of a queue may share a message, 1 where nothing is said; 1 to 64.

        Takes at most the publish timeout (5 s). Never raises for a broker that is away: then
        all are False.
        """
        ...

    async def probe(self) -> bool:
        """Whether publishing is possible now: connected, not blocked by an alarm."""
        ...

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        """Depths known now, of these queues at least, of all if none is named.

        A queue whose depth is unknown is left out.
        """
        ...

    def subscribe(
        self,
        queue: QueueKey,
        *,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None],
    ) -> AbstractAsyncContextManager[Subscription]:
        """A subscription with prefetch 0. Leaving the block ends it; what is unacked returns.

        `on_delivery` is called for each message and must not block. `on_lost` is called when the
        connection that carried the deliveries so far is gone: none of them can be acked any more
        and the broker will deliver them again.
        """
        ...


# ---- provider -----------------------------------------------------------------------------------


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider needs to send one notification.

    `content` is the decoded document of the submit: `subject`, `body`, `html`, `data`; absent keys
    are absent. `id` is stable per notification: providers derive `Message-ID` and idempotency keys
    from it. `claim` tells attempts apart.
    """

    id: NotificationId
    claim: int
    queue: QueueKey
    recipient: str
    content: Mapping[str, object]


class Provider(Protocol):
    """One way to send on a channel."""

    @property
    def name(self) -> str:
        """The name it has in the settings."""
        ...

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt. Every expected answer is an Outcome, also time-outs and cut connections.

        When cancelled it lets the connection go and re-raises. The caller bounds it by a timeout
        and takes a cancelled send for Ambiguous.
        """
        ...


# ---- store --------------------------------------------------------------------------------------


class ClaimAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A pointer's wish to be claimed: only the row still `queued` at `claim` answers.

    One that `is_buffered` was never asked for: given back, it moves no row that is being sent.
    """

    id: NotificationId
    claim: int
    is_buffered: bool = False


class NotYours(msgspec.Struct, frozen=True):
    """The row moved on (claimed by another, cancelled, final) or ended in this claim.

    In the latter case `status` is what it ended as (expired) and `age_s` how old it was.
    """

    status: Status | None = None
    age_s: float = 0.0


ClaimAnswer = Claimed | NotYours


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt, to be recorded.

    `status` is sent, retrying or failed; `after` the span until it is due again (retrying only).
    `reason` is the failure's reason (failed only). Start and finish of the provider call are
    instants of the monotonic clock.
    """

    id: NotificationId
    claim: int
    status: Status
    spends: bool
    after: timedelta | None
    reason: str
    outcome: str
    provider: str
    code: str
    detail: str
    reference: str
    waited_s: float
    started_at_monotonic: float
    finished_at_monotonic: float


class Recorded(msgspec.Struct, frozen=True):
    """What the row became.

    `late` if it had moved on before: then `status` is None unless the result settled it all the
    same. `age_s` is the time since it was accepted.
    """

    status: Status | None
    late: bool
    age_s: float


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A row that went back unspent: `queued`, or `expired` if it is past its time by now."""

    queue: QueueKey
    status: Status
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many due rows of one queue and class (first attempts or retries) the relay may take."""

    queue: QueueKey
    is_retry: bool
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Due rows of one queue: how many (counted to a ceiling) and how long the oldest waits."""

    due: int
    is_ceiling: bool
    oldest_wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What one worker says of its side of one queue, in its heartbeat.

    `consumers` hold the queue (the standing ones counted), `busy` of them carry out an attempt.
    `held` messages are unacked here. `done` counts attempts finished since the process started.
    `done_per_s` and `service_s` are moving averages. `limited_by` is the allocator's answer to
    "why is it not moving?". `held_since` is the oldest `published_at` among the held, `mark` the
    newest `published_at` of a non-redelivered message taken at least 10 s ago (both in seconds
    since the epoch, None if there is none). `drained_s` is for how long, without a break, every
    poll said ready = 0 with consumers > 0 while nothing was held here.
    """

    consumers: int
    busy: int
    held: int
    done: int
    done_per_s: float
    service_s: float
    limited_by: str
    held_since: float | None
    mark: float | None
    drained_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that a process says in its heartbeat."""

    queues: Mapping[QueueKey, QueueFigures]
    providers: Mapping[str, ProviderFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """A heartbeat read back: `kind` is api, worker or dev, `age_s` by Postgres's clock."""

    id: WorkerId
    kind: str
    host: str
    pid: int
    beat: int
    age_s: float
    queues: Mapping[QueueKey, QueueFigures]
    providers: Mapping[str, ProviderFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beaten:
    """What a heartbeat brings back: Postgres's clock (seconds since the epoch), and the others."""

    now: float
    others: Sequence[WorkerFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A row that says `sending` by a process that is dead: `worker` at `claim`."""

    id: NotificationId
    claim: int
    worker: WorkerId
    queue: QueueKey
    tries: int
    max_tries: int | None
    deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """What follows for an orphan: `status` is queued (due at once) or failed, with its `reason`."""

    orphan: Orphan
    provider: str
    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A piece of a provider's schedule: `count` calls, `spacing_s` apart.

    The first is due `starts_in_s` after the answer. A `count` of 0 says that the schedule is given
    away up to there. `rate_per_s` is the rate now, after cuts.
    """

    starts_in_s: float
    spacing_s: float
    count: int
    rate_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One row of `GET /v1/queues`."""

    queue: QueueKey
    ready: int
    due: int
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float
    limited_by: str
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """One row of `GET /v1/providers`.

    `channels` are those it may send on. `breaker` is a BreakerState, `reason` why it opened, "" if
    it never did; `probe_in_s` when it may be probed, 0 unless it is open or half-open. `calls` and
    `failures` are those of the last 10 s, all workers together.
    """

    provider: str
    channels: tuple[str, ...]
    breaker: str
    reason: str
    probe_in_s: float
    paused: bool
    calls: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which notifications or failures a reader wants; newest first, `before` is the cursor."""

    status: Status | None = None
    channel: str | None = None
    priority: str | None = None
    reason: str | None = None
    created_from: float | None = None
    created_to: float | None = None
    before: NotificationId | None = None
    limit: int = 50


class Store(Protocol):
    """What the core writes; see adapters/postgres/store.py for each method's contract.

    Everything may be repeated. Raises StoreUnavailable (StoreConflict), StoreRejected.
    """

    async def insert(
        self, items: Sequence[NewNotification], *, taken: Collection[NotificationId] = ()
    ) -> Sequence[Pointer]: ...
    async def claim(self, asks: Sequence[ClaimAsk]) -> Sequence[ClaimAnswer]: ...
    async def record(self, results: Sequence[tuple[Result, float]]) -> Sequence[Recorded]: ...
    async def give_back(self, asks: Sequence[ClaimAsk]) -> Sequence[GivenBack]: ...
    async def claimed_by_me(self) -> Sequence[ClaimAsk]: ...
    async def take_due(
        self, quotas: Sequence[Quota], most: int
    ) -> Sequence[tuple[Pointer, bool]]: ...
    async def unpublish(self, pointers: Sequence[Pointer]) -> None: ...
    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]: ...
    async def rescue(self, queue: QueueKey, published_before: float) -> int: ...
    async def rescue_from(
        self, silent: Sequence[tuple[WorkerId, int]], queues: Sequence[QueueKey]
    ) -> Mapping[QueueKey, int]: ...
    async def orphans_of(self, silent: Sequence[tuple[WorkerId, int]]) -> Sequence[Orphan]: ...
    async def bury(
        self, deaths: Sequence[Death], silent: Sequence[tuple[WorkerId, int]]
    ) -> Sequence[tuple[Death, Status, float]]: ...
    async def database_now(self) -> float: ...
    async def sweep(self) -> Sequence[tuple[QueueKey, float]]: ...
    async def ensure_days(self) -> int: ...
    async def days(self) -> Sequence[str]: ...
    async def drop_day(self, day: date) -> str: ...
    async def forget_processes(self) -> None: ...
    async def estimate_backlog(self) -> int: ...


class Heartbeat(Protocol):
    """One process's row among the living, on a connection of its own."""

    async def beat(self, *, kind: str, host: str, pid: int, beat: int, figures: Figures) -> Beaten:
        """Say that this process lives; returns the other processes' rows and the time."""
        ...

    async def leave(self) -> None:
        """Remove the row: this process ends of its own will."""
        ...


class ControlStore(Protocol):
    """Pauses and breakers in Postgres. Every change tells all processes at once.

    Raises StoreUnavailable. Each change is compare-and-set and says whether it was made.
    """

    async def read(self) -> Controls:
        """All pauses that have not expired, and all breakers."""
        ...

    async def changed(self, within_s: float) -> None:
        """Return when some process changed something, or after `within_s`; raises nothing else."""
        ...

    async def pause(self, scope: Scope, *, reason: str, for_s: float | None) -> None:
        """Begin or prolong a pause; None is until resumed."""
        ...

    async def resume(self, scope: Scope) -> bool:
        """End a pause; False if there was none."""
        ...

    async def open_breaker(self, provider: str, reason: str) -> bool:
        """Closed (or no row) -> open, to be probed in 5 s."""
        ...

    async def hold_probe(self, provider: str, within_s: float) -> bool:
        """Open and past its wait, or half-open and past its hold -> half-open, held by us.

        The hold ends after `within_s`.
        """
        ...

    async def reopen_breaker(self, provider: str, reason: str) -> bool:
        """Half-open and held by this process -> open, the wait doubled, 60 s at most."""
        ...

    async def close_breaker(self, provider: str) -> bool:
        """Half-open and held by this process -> closed."""
        ...


class RateStore(Protocol):
    """The schedules of provider rates. Raises StoreUnavailable."""

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        """The next `count` calls of the schedule; none if it is given away 150 ms ahead."""
        ...

    async def cut(self, provider: str) -> bool:
        """The provider said "too fast": 0.7 of what it was, at most once a second."""
        ...


class Pulse(Protocol):
    """Whether the others must take this process for alive, so that a provider call may begin."""

    def is_alive(self) -> bool: ...

    async def until_alive(self) -> None:
        """Return at once while alive, else with the next heartbeat that arrives."""
        ...


class Acceptor(Protocol):
    """Where a submit goes: see delivery/accept.py."""

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Status | StoreRejected]:
        """Store all; for each its status, or why Postgres refused that one.

        Returns after the commit. Raises StoreUnavailable when the deadline passes first (some may
        exist then) and Overloaded when the process or the deployment holds too much.
        """
        ...


class Reader(Protocol):
    """What the API and the command line read. Raises StoreUnavailable when Postgres is away."""

    async def get(self, id: NotificationId) -> NotificationView | None:  # noqa: A002 the field's word
        """One notification with its attempts."""
        ...

    async def notifications(self, which: Filter) -> Sequence[NotificationView]:
        """At most `which.limit`, newest first, without attempts."""
        ...

    async def failures(self, which: Filter) -> Sequence[FailureView]:
        """At most `which.limit`, newest first."""
        ...


class Observer(Protocol):
    """Where the core says what happened, for metrics."""

    def accepted(self, queue: QueueKey, count: int) -> None: ...
    def accept_seconds(self, seconds: float) -> None: ...
    def published(self, queue: QueueKey, count: int) -> None: ...
    def waited(self, queue: QueueKey, seconds: float) -> None: ...
    def attempted(
        self, queue: QueueKey, provider: str, outcome: str, code: str, seconds: float
    ) -> None: ...
    def retried(self, queue: QueueKey, reason: str) -> None: ...
    def finished(self, queue: QueueKey, status: Status, age_s: float, reason: str = "") -> None: ...
    def rescued(self, queue: QueueKey, count: int, reason: str = "lost") -> None: ...
    def released(self, queue: QueueKey, count: int) -> None: ...
    def moved(self, queue: QueueKey, count: int) -> None: ...
    def unreadable(self) -> None: ...
    def queue_measured(
        self, queue: QueueKey, *, ready: int, due: int, oldest_wait_s: float
    ) -> None: ...
    def queue_held(
        self, queue: QueueKey, *, consumers: int, busy: int, limited_by: str
    ) -> None: ...
    def hangs(self, channel: Channel, *, is_so: bool) -> None: ...
    def workers(self, count: int) -> None: ...
    def processes_lost(self, count: int) -> None: ...
    def answered(self, dependency: str, seconds: float) -> None: ...
    def unanswered(self, dependency: str) -> None: ...
    def lagged(self, seconds: float) -> None: ...
    def waiting(self, count: int, *, most: int) -> None: ...
    def days_kept(self, count: int) -> None: ...
    def breaker(self, provider: str, state: str) -> None: ...
    def provider_failed(self, provider: str, reason: str) -> None: ...
    def provider_rate(self, provider: str, rate_per_s: float) -> None: ...
