"""What the core reports to its metrics: one Protocol for each part that reports.

No method raises or blocks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from notifier.domain.fallbacks import FallbackOutcome
from notifier.domain.notification import (
    Channel,
    QueueKey,
    Status,
)
from notifier.domain.receipts import ReceiptEvent, ReceiptResult
from notifier.domain.schedules import RunOutcome


class RescueReason(StrEnum):
    """Why a notification was recovered: its message was lost, or its worker died."""

    MESSAGE_LOST = "message_lost"
    PROCESS_DIED = "process_died"


class FinishObserver(Protocol):
    """What each part reports that ends notifications."""

    def finished(self, queue: QueueKey, status: Status, age_s: float, reason: str = "") -> None:
        """Report a final status, the age since the submit, and the reason of a failure."""
        ...


class AcceptObserver(FinishObserver, Protocol):
    """What accept reports."""

    def accepted(self, queue: QueueKey, count: int) -> None:
        """Report stored notifications."""
        ...

    def submit_committed(self, seconds: float) -> None:
        """Report the time from a submit to its commit."""
        ...

    def waiting_counted(self, count: int, *, limit: int) -> None:
        """Report about how many rows wait, and above which number submits are refused."""
        ...


class RelayObserver(Protocol):
    """What the relay reports."""

    def published(self, queue: QueueKey, count: int) -> None:
        """Report pointers whose publish the broker confirmed."""
        ...


class AttemptObserver(FinishObserver, Protocol):
    """What attempts report."""

    def claimed(self, queue: QueueKey, wait_s: float) -> None:
        """Report that a provider call begins, and for how long the notification had been due."""
        ...

    def attempted(
        self, queue: QueueKey, provider: str, outcome: str, code: str, seconds: float
    ) -> None:
        """Report a provider call that ended, its outcome, the provider's code and its duration."""
        ...

    def retried(self, queue: QueueKey, reason: str) -> None:
        """Report a planned retry; `reason` is the outcome that caused it."""
        ...

    def released(self, queue: QueueKey, count: int) -> None:
        """Report notifications that a worker gave back without an attempt."""
        ...

    def copies_refused(self, queue: QueueKey, count: int) -> None:
        """Report copies of an accepted email that the provider refused."""
        ...

    def parked(self, queue: QueueKey, count: int) -> None:
        """Report notifications that a worker parked because they may not be sent now."""
        ...


class RecoveryObserver(FinishObserver, Protocol):
    """What the recovery of lost messages and of dead processes reports."""

    def rescued(self, queue: QueueKey, count: int, reason: RescueReason) -> None:
        """Report notifications that were recovered after a fault."""
        ...

    def retried(self, queue: QueueKey, reason: str) -> None:
        """Report a planned retry; `reason` is the outcome that caused it."""
        ...


class LossObserver(Protocol):
    """What the loss check reports."""

    def lost_counted(self, count: int) -> None:
        """Report how many of the newest notifications are lost."""
        ...


class PrunerObserver(Protocol):
    """What the pruner reports."""

    def partitions_kept(self, count: int) -> None:
        """Report the days past retention that still hold rows that are not final."""
        ...


class SchedulerObserver(Protocol):
    """What the scheduler of consumers reports."""

    def queue_measured(
        self, queue: QueueKey, *, ready: int, due: int, oldest_wait_s: float
    ) -> None:
        """Report the pointers ready in the broker, the due rows and the longest wait."""
        ...

    def consumers_measured(
        self, queue: QueueKey, *, consumers: int, busy: int, limited_by: str
    ) -> None:
        """Report this worker's consumers of a queue, and what limits their number."""
        ...

    def consumers_moved(self, queue: QueueKey, count: int) -> None:
        """Report consumers that the scheduler moved to this queue."""
        ...


class HangObserver(Protocol):
    """What the hang detector reports."""

    def provider_hanging(self, channel: Channel, *, is_hanging: bool) -> None:
        """Report whether a channel's provider leaves its calls unanswered."""
        ...


class PoolObserver(SchedulerObserver, HangObserver, Protocol):
    """What a consumer pool reports."""


class ConnectionObserver(Protocol):
    """What the limits of connections report."""

    def provider_connections_changed(self, provider: str, connections: int) -> None:
        """Report how many connections of this process a provider's server takes."""
        ...


class BreakerObserver(Protocol):
    """What the circuit breakers report."""

    def breaker_changed(self, provider: str, state: str, reason: str) -> None:
        """Report the state of a provider's breaker, and why it opened last."""
        ...

    def breaker_opened(self, provider: str, reason: str) -> None:
        """Report that this process opened a breaker."""
        ...


class RateObserver(Protocol):
    """What a provider's rate reports."""

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        """Report a provider's present rate; 0 for no limit."""
        ...


class DependencyObserver(Protocol):
    """What is known about the servers that this process depends on."""

    def dependency_answered(self, dependency: str, seconds: float) -> None:
        """Report a round trip to Postgres or RabbitMQ."""
        ...

    def dependency_unavailable(self, dependency: str) -> None:
        """Report that Postgres or RabbitMQ did not answer."""
        ...


class MembershipObserver(DependencyObserver, Protocol):
    """What the membership reports with each heartbeat."""

    def workers_counted(self, count: int) -> None:
        """Report how many workers are alive."""
        ...

    def workers_behind(self, count: int) -> None:
        """Report how many workers lack a feature of this version."""
        ...

    def processes_died(self, count: int) -> None:
        """Report processes that died without deregistering."""
        ...


class LeaseObserver(Protocol):
    """What the keeper of the leases reports."""

    def leases_held(self, count: int) -> None:
        """Report under how many leases this process may publish now."""
        ...


class BrokerObserver(Protocol):
    """What a broker reports."""

    def message_unreadable(self) -> None:
        """Report a message of the broker that could not be decoded."""
        ...

    def foreign_pointers_received(self, count: int) -> None:
        """Report pointers of another deployment that uses the same vhost."""
        ...

    def queues_refused(self, count: int) -> None:
        """Report how many queues the broker refuses to declare."""
        ...


class ConfigurationObserver(Protocol):
    """What the configuration check reports."""

    def unconfigured_counted(self, *, notifications: int, pauses: int) -> None:
        """Report the notifications and pauses whose channel or provider the settings lack."""
        ...


class ReceiptObserver(Protocol):
    """What the receiver and the matcher of receipts report."""

    def receipts_received(self, provider: str, event: ReceiptEvent, count: int) -> None:
        """Report verified receipts that are stored, copies included."""
        ...

    def receipts_refused(self, provider: str) -> None:
        """Report a request that was refused: its signature, or its body."""
        ...

    def receipt_ended(self, provider: str, result: ReceiptResult) -> None:
        """Report a receipt that is done."""
        ...


class ScheduleObserver(Protocol):
    """What the runner of schedules reports."""

    def schedule_run_ended(self, outcome: RunOutcome) -> None:
        """Report what became of a run."""
        ...

    def schedule_instants_skipped(self, count: int) -> None:
        """Report instants of a schedule that were missed and are not submitted any more."""
        ...


class EventObserver(Protocol):
    """What the reader of events reports."""

    def events_read(self, count: int, lag_s: float) -> None:
        """Report events that were read for streams, and how long ago the first was written."""
        ...

    def event_streams_open(self, count: int) -> None:
        """Report how many streams of events are open."""
        ...

    def event_stream_cut(self) -> None:
        """Report a stream whose reader was too slow."""
        ...


class StatsObserver(Protocol):
    """What the roll-up of statistics reports."""

    def stats_rolled_up(self, changes: int, behind_s: float) -> None:
        """Report changes that this process counted, and how old the oldest one was before."""
        ...


class GuardObserver(Protocol):
    """What the campaign guard reports."""

    def tag_paused(self) -> None:
        """Report a tag that the guard has paused."""
        ...


class FallbackObserver(Protocol):
    """What the runner of fallbacks reports."""

    def fallback_ended(self, outcome: FallbackOutcome) -> None:
        """Report what became of a fallback."""
        ...


class WebhookObserver(Protocol):
    """What webhooks report."""

    def webhook_calls_stored(self, count: int) -> None:
        """Report calls that events were turned into."""
        ...

    def webhook_lag(self, seconds: float) -> None:
        """Report how long ago the first event was written that was just turned into calls."""
        ...

    def webhook_calls_expired(self, count: int) -> None:
        """Report calls that expire because too many wait for their webhook."""
        ...

    def webhook_disabled(self, reason: str) -> None:
        """Report a webhook that was disabled because of its calls."""
        ...


class LoopObserver(Protocol):
    """What the watch of the event loop reports."""

    def loop_lagged(self, seconds: float) -> None:
        """Report how late the event loop ran a timer."""
        ...


class Observer(
    AcceptObserver,
    RelayObserver,
    AttemptObserver,
    RecoveryObserver,
    LossObserver,
    PrunerObserver,
    PoolObserver,
    BreakerObserver,
    RateObserver,
    ConnectionObserver,
    MembershipObserver,
    LeaseObserver,
    BrokerObserver,
    ConfigurationObserver,
    ScheduleObserver,
    EventObserver,
    StatsObserver,
    GuardObserver,
    FallbackObserver,
    ReceiptObserver,
    WebhookObserver,
    LoopObserver,
    Protocol,
):
    """All that the core reports; the parts of the core take the narrow Protocols."""
