"""The findings about a RabbitMQ, and how to fix each. Pure: checkup.py does the requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, assert_never

from notifier.adapters.rabbitmq.errors import BrokerRefused
from notifier.adapters.rabbitmq.topology import EXCHANGE, queue_name
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.finding import Finding, not_checked, ok, warning, wrong
from notifier.domain.notification import QueueKey

REACH: Final = "rabbitmq"
VERSION: Final = "rabbitmq version"
OF_EXCHANGE: Final = "rabbitmq exchange"
ALARM: Final = "rabbitmq alarm"

MIN_VERSION: Final = (3, 10)
_MIN_VERSION_TEXT: Final = ".".join(map(str, MIN_VERSION))
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


def check_of_queue(queue: QueueKey) -> str:
    """Return the name of the check of a queue."""
    return f"rabbitmq queue {queue}"


def of_reach(place: str) -> Finding:
    """Return the finding for a RabbitMQ that accepted the connection."""
    return ok(REACH, f"{place} answers")


def of_no_connection(
    error: BrokerUnavailable, queues: Sequence[QueueKey], *, place: str, timeout_s: float
) -> list[Finding]:
    """Return the findings for a RabbitMQ that could not be connected to."""
    is_timeout = isinstance(error.__cause__, TimeoutError)
    reason = f"no answer within {timeout_s:g} s" if is_timeout else str(error)
    fix = (
        "correct user, password or vhost in NOTIFIER_BROKER_URL, or create them"
        if isinstance(error, BrokerRefused)
        else "start it, open the network path to it, or correct NOTIFIER_BROKER_URL"
    )
    others = [VERSION, OF_EXCHANGE, *map(check_of_queue, queues), ALARM]
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


def of_exchange(inspection: Inspection) -> Finding:
    """Return the finding about the exchange; one that is missing is created at the next start."""
    match inspection.state:
        case State.MATCHES:
            return ok(OF_EXCHANGE, "as it should be")
        case State.MISSING:
            return ok(OF_EXCHANGE, "not there yet: the first process creates it")
        case State.DIFFERS:
            fix = f"delete exchange {EXCHANGE}, and restart: a process creates it again"
            return wrong(OF_EXCHANGE, inspection.reason, fix)
        case State.REFUSED:
            return wrong(OF_EXCHANGE, inspection.reason, _RIGHTS)
        case State.UNKNOWN:
            return not_checked(OF_EXCHANGE, inspection.reason)
        case _:
            assert_never(inspection.state)


def of_queue(inspection: Inspection, queue: QueueKey, *, has_exchange: bool) -> Finding:
    """Return the finding about a queue. A missing queue is a warning if the exchange exists."""
    check, name = check_of_queue(queue), queue_name(queue)
    match inspection.state:
        case State.MATCHES:
            return ok(check, "as it should be")
        case State.MISSING if has_exchange:
            fix = "restart a process: it creates the queues of its settings"
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
