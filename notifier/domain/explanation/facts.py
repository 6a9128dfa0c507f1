"""What an explanation is made of: the facts about a notification and its queue, and the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import Breaker, Pause, Scope
from notifier.domain.due import DueClass
from notifier.domain.holds import Holds
from notifier.domain.notification import NotificationId, QueueKey, Status
from notifier.domain.tenants import TenantId
from notifier.domain.turns import FIRST_TURN


class BlockerKind(StrEnum):
    """What holds a notification. Each limit of a queue but `need` has the same name here."""

    SCHEDULED = "scheduled"
    RETRY = "retry"
    QUIET_HOURS = "quiet_hours"
    PAUSE = "pause"
    BREAKER = "breaker"
    HANG = "hang"
    BROKER = "broker"
    NO_WORKER = "no_worker"
    NO_CHANNEL = "no_channel"
    CONNECTIONS = "connections"
    RATE = "rate"
    CONSUMERS = "consumers"
    BEHIND = "behind"


SLOWING: Final = (
    BlockerKind.CONNECTIONS,
    BlockerKind.RATE,
    BlockerKind.CONSUMERS,
    BlockerKind.BEHIND,
)
"""What only delays: the queue is sent, but not as fast as it could be, or others come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that holds a notification.

    `until_at` is shown: when it ends, or when the provider of an open breaker is probed next.
    `ends_at` is when it is known to end; None if that depends on somebody, or nobody knows.
    `is_of_queue`: the whole queue is stopped, with those that stand before the notification.
    `moves_it`: the end of the blocker gives the notification another place in its queue.
    """

    kind: BlockerKind
    name: str | None = None
    until_at: datetime | None = None
    detail: str | None = None
    ends_at: datetime | None = None
    is_of_queue: bool = False
    moves_it: bool = False


@dataclass(frozen=True, slots=True)
class Ahead:
    """How many stand before a notification: at least `count` unless `is_exact`.

    `at_most` are those that can be sent before it, retries or first attempts of later included;
    None if that is unknown.
    """

    count: int
    is_exact: bool
    at_most: int | None


NOTHING_AHEAD: Final = Ahead(0, is_exact=True, at_most=0)


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many rows of a class wait before a position: a minimum unless `is_exact`."""

    count: int
    is_exact: bool


class Expected(NamedTuple):
    """When a notification is expected to be sent. `latest_at` None: nobody knows how late."""

    earliest_at: datetime
    latest_at: datetime | None


class LastAttempt(NamedTuple):
    """The newest attempt of a notification; `number` is its claim."""

    number: int
    provider: str
    outcome: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The notification that is explained, as of one instant of Postgres's clock."""

    id: NotificationId
    status: Status
    queue: QueueKey
    as_of_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow(Subject):
    """A notification that waits: `turn`, `due_class` and `due_at` are its place in the queue.

    `claim` is 0 if it was never claimed. `content` is empty unless it may name a time zone.
    `parked_by` is the pause that parked it, None if none did.
    """

    tenant: TenantId
    tag: str | None
    due_class: DueClass
    claim: int
    due_at: datetime
    content: bytes = b""
    parked_by: Scope | None = None
    last_attempt: LastAttempt | None = None
    turn: int = FIRST_TURN

    @property
    def is_due(self) -> bool:
        """Whether it may be sent now, as far as its own time is concerned."""
        return self.due_at <= self.as_of_at

    @property
    def is_parked(self) -> bool:
        """Whether it was put off by a hold: nothing else makes a claimed row due later as FIRST."""
        return not self.is_due and self.due_class is DueClass.FIRST and self.claim > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """The settings of a queue: its provider, rates in calls per second, and its promised wait."""

    provider: str
    provider_rate_per_s: float | None
    consumer_rate_per_s: float | None
    target_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """The state of a queue.

    `rules` is None for a queue of which the settings have no channel. `pauses` and `breakers` are
    those that stop it; `refusal` is why RabbitMQ refuses it, None if it does not. `limited_by` is
    the limit of its consumers that the workers report. `done_per_s` are the attempts that ended per
    second; `potential_per_s` are the calls that its present consumers can begin, None if no call
    was measured. `may_overtake` is how many rows may be sent in another order than they stand.
    """

    rules: QueueRules | None
    pauses: Sequence[Pause] = ()
    breakers: Sequence[Breaker] = ()
    refusal: str | None = None
    limited_by: str = Limit.NEED
    limited_by_detail: str | None = None
    workers: int = 0
    consumers: int = 0
    busy: int = 0
    done_per_s: float = 0.0
    potential_per_s: float | None = None
    may_overtake: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known. `authors` says who began a pause, as far as the audit has it."""

    row: WaitingRow
    queue: QueueFacts
    holds: Holds = field(default_factory=Holds)
    ahead: Ahead = NOTHING_AHEAD
    authors: Mapping[Scope, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a notification waits: the most decisive blocker first, none if it does not wait.

    `expected` is None if that depends on somebody, and if it does not wait.
    """

    subject: Subject
    blockers: Sequence[Blocker] = ()
    ahead: Ahead = NOTHING_AHEAD
    expected: Expected | None = None
