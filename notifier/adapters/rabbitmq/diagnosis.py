"""The findings about a RabbitMQ, and how to fix each. Pure: checkup.py does the requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, assert_never

from notifier.adapters.rabbitmq.topology import EXCHANGE, queue_name
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.finding import Finding, not_checked, ok, warning, wrong
from notifier.domain.notification import QueueKey

REACH: Final = "rabbitmq"
VERSION: Final = "rabbitmq version"
LIMITS: Final = "rabbitmq limits"
DELIVERY: Final = "rabbitmq delivery"
OF_EXCHANGE: Final = "rabbitmq exchange"
ALARM: Final = "rabbitmq alarm"

MIN_VERSION: Final = (3, 10)
_MIN_VERSION_TEXT: Final = ".".join(map(str, MIN_VERSION))
CONNECTIONS_OF_A_PROCESS: Final = 2
_MORE_CONNECTIONS: Final = (
    "raise max-connections (`rabbitmqctl set_vhost_limits`, `set_user_limits`), the limit of open "
    "files, or run fewer processes"
)
_RIGHTS: Final = (
    f"give the user configure, write and read on ^{EXCHANGE}(\\..*)?$ in this vhost: "
    "`rabbitmqctl set_permissions`"
)


class State(Enum):
    """The result of comparing an exchange or a queue with our declaration."""

    MATCHES = auto()
    DIFFERS = auto()
    MISSING = auto()
    REFUSED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The state of an exchange or a queue; `reason` is RabbitMQ's reply, or why there is none."""

    state: State
    reason: str = ""


class Alarm(Enum):
    """Whether an alarm stops publishing; HIDDEN if the user may not find out."""

    OFF = auto()
    ON = auto()
    HIDDEN = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Publishing:
    """Whether RabbitMQ takes messages; `refusal` is its reply if the user may not publish."""

    alarm: Alarm
    refusal: str = ""


class Delivery(Enum):
    """Whether a message went through the exchange to a queue of our own and came back.

    NOT_TRIED if the exchange is missing, or if the user may only use the queues of the settings.
    """

    WORKS = auto()
    FAILED = auto()
    NOT_TRIED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What RabbitMQ allows: how many more connections, how many channels in each (0: any number).

    A reason is RabbitMQ's reply where it refused a further connection, a queue in the place of one
    that is missing, or one of the channels that a worker needs.
    """

    connections: int
    connections_reason: str
    channels: int
    channels_needed: int
    queues_reason: str
    channels_reason: str


def check_of_queue(queue: QueueKey) -> str:
    """Return the name of the check of a queue."""
    return f"rabbitmq queue {queue}"


def of_reach(place: str) -> Finding:
    """Return the finding for a RabbitMQ that accepted the connection."""
    return ok(REACH, f"{place} answers")


def of_no_connection(
    error: BrokerUnavailable,
    queues: Sequence[QueueKey],
    *,
    place: str,
    timeout_s: float,
    fix: str,
) -> list[Finding]:
    """Return the findings for a RabbitMQ that could not be connected to."""
    is_timeout = isinstance(error.__cause__, TimeoutError)
    reason = f"no answer within {timeout_s:g} s" if is_timeout else str(error)
    others = [VERSION, LIMITS, OF_EXCHANGE, *map(check_of_queue, queues), DELIVERY, ALARM]
    return [
        wrong(REACH, f"{place}: {reason}", fix),
        *(not_checked(check, "there is no connection to RabbitMQ") for check in others),
    ]


def of_version(properties: Mapping[str, object]) -> Finding:
    """Return the finding about the product and version in the server's `properties`."""
    product, version = str(properties.get("product")), str(properties.get("version"))
    if product != "RabbitMQ":
        return warning(
            VERSION,
            f"this is {product} {version}",
            "use RabbitMQ: Notifier is not tested with other brokers",
        )
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MIN_VERSION:
        return wrong(
            VERSION,
            f"{version} is too old",
            f"upgrade to RabbitMQ {_MIN_VERSION_TEXT} or newer",
        )
    return ok(VERSION, version)


def of_limits(limits: Limits | None) -> Finding:
    """Return the finding about the limits of RabbitMQ, of the vhost and of the user."""
    if limits is None:
        return not_checked(LIMITS, "RabbitMQ stopped answering")
    if limits.connections < CONNECTIONS_OF_A_PROCESS:
        return wrong(LIMITS, _connections(limits), _MORE_CONNECTIONS)
    if limits.channels and limits.channels < limits.channels_needed:
        finding = (
            f"channel_max is {limits.channels}; a worker needs {limits.channels_needed} channels "
            "in a connection"
        )
        fix = f"set channel_max = {max(2047, limits.channels_needed)} in rabbitmq.conf; restart it"
        return wrong(LIMITS, finding, fix)
    if limits.channels_reason:
        finding = f"a worker needs {limits.channels_needed} channels: {limits.channels_reason}"
        fix = "raise max-channels: `rabbitmqctl set_user_limits`"
        return wrong(LIMITS, finding, fix)
    if limits.queues_reason:
        fix = (
            "raise max-queues: `rabbitmqctl set_vhost_limits`, or remove channels from the settings"
        )
        return wrong(LIMITS, limits.queues_reason, fix)
    if limits.connections_reason:
        return warning(LIMITS, _connections(limits), _MORE_CONNECTIONS)
    return ok(LIMITS, "connections, channels and queues suffice for an API and a worker more")


def _connections(limits: Limits) -> str:
    return (
        f"it takes {limits.connections} more connections, each process needs "
        f"{CONNECTIONS_OF_A_PROCESS}: {limits.connections_reason}"
    )


def of_exchange(inspection: Inspection, publishing: Publishing) -> Finding:
    """Return the finding about the exchange; one that is missing is created at the next start."""
    if publishing.refusal and inspection.state in {State.MATCHES, State.MISSING}:
        return wrong(OF_EXCHANGE, publishing.refusal, _RIGHTS)
    match inspection.state:
        case State.MATCHES:
            return ok(OF_EXCHANGE, "as it should be")
        case State.MISSING:
            return ok(OF_EXCHANGE, "not there yet: the first process creates it")
        case State.DIFFERS:
            fix = (
                f"delete exchange {EXCHANGE} if nobody else needs it: the processes create it again"
            )
            return wrong(OF_EXCHANGE, inspection.reason, fix)
        case State.REFUSED:
            return wrong(OF_EXCHANGE, inspection.reason, _RIGHTS)
        case State.UNKNOWN:
            return not_checked(OF_EXCHANGE, inspection.reason)
        case _:
            assert_never(inspection.state)


def of_queue(
    inspection: Inspection, queue: QueueKey, *, has_exchange: bool, has_quorum: bool
) -> Finding:
    """Return the finding about a queue. A missing queue is a warning if the exchange exists."""
    check, name = check_of_queue(queue), queue_name(queue)
    match inspection.state:
        case State.MATCHES if not has_quorum:
            fix = (
                "start the missing nodes of the cluster; which members a queue has: "
                f"`rabbitmq-queues quorum_status {name}`"
            )
            return wrong(check, "no quorum: most members of the queue do not answer", fix)
        case State.MATCHES:
            return ok(check, "as it should be")
        case State.MISSING if has_exchange:
            fix = "start a process: it creates the queues of its settings"
            return warning(check, "missing, though the exchange exists", fix)
        case State.MISSING:
            return ok(check, "not there yet: the first process creates it")
        case State.DIFFERS:
            fix = (
                f"`rabbitmqctl delete_queue {name}` on its vhost if nobody else needs it: the "
                "processes create it within 2 s and publish its notifications from Postgres"
            )
            return wrong(check, inspection.reason, fix)
        case State.REFUSED:
            return wrong(check, inspection.reason, _RIGHTS)
        case State.UNKNOWN:
            return not_checked(check, inspection.reason)
        case _:
            assert_never(inspection.state)


def of_delivery(delivery: Delivery | None, publishing: Publishing) -> Finding:
    """Return the finding about a message that was sent through RabbitMQ to ourselves."""
    match delivery:
        case None:
            return not_checked(DELIVERY, "RabbitMQ stopped answering")
        case Delivery.WORKS:
            return ok(DELIVERY, "a message came back through a queue of doctor's own")
        case Delivery.NOT_TRIED:
            return ok(
                DELIVERY, "not tried: no exchange yet, or no right to a queue of doctor's own"
            )
        case Delivery.FAILED if publishing.alarm is Alarm.ON:
            return not_checked(DELIVERY, "it is in alarm")
        case Delivery.FAILED:
            fix = "look into RabbitMQ's log; `rabbitmq-diagnostics check_running`"
            return wrong(DELIVERY, "a message to a queue of doctor's own did not arrive", fix)
        case _:
            assert_never(delivery)


def of_alarm(alarm: Alarm) -> Finding:
    """Return the finding about alarms, which stop publishing."""
    command = "run `rabbitmq-diagnostics alarms` on the broker's machine"
    match alarm:
        case Alarm.OFF:
            return ok(ALARM, "none: it takes messages")
        case Alarm.ON:
            fix = f"give it memory or disk; to see which, {command}"
            return wrong(ALARM, "it is in alarm and takes no messages", fix)
        case Alarm.HIDDEN:
            because = "this user may not publish to the default exchange"
            return not_checked(ALARM, because, command)
        case Alarm.UNKNOWN:
            return not_checked(ALARM, "no answer", command)
        case _:
            assert_never(alarm)
