"""What is to be said of a RabbitMQ, and how to mend it. Pure: checkup.py asks."""

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
_LEAST: Final = ".".join(map(str, MIN_VERSION))
_RIGHTS: Final = (
    f"give the user configure, write and read on ^{EXCHANGE}(\\..*)?$ in this vhost: "
    "`rabbitmqctl set_permissions`"
)


class State(Enum):
    """What declaring a thing as ours has shown of it."""

    OURS = auto()
    UNLIKE = auto()
    ABSENT = auto()
    REFUSED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing in the broker; `reason` is what the broker said, or why it said nothing."""

    state: State
    reason: str = ""


class Alarm(Enum):
    """What became of a message to nobody."""

    OFF = auto()
    ON = auto()
    HIDDEN = auto()
    UNKNOWN = auto()


def of_queue_name(queue: QueueKey) -> str:
    """What the check of a queue is called."""
    return f"rabbitmq queue {queue}"


def of_reach(place: str) -> Finding:
    """It let us in."""
    return ok(REACH, f"{place} answers")


def of_no_connection(
    error: BrokerUnavailable, queues: Sequence[QueueKey], *, place: str, within_s: float
) -> list[Finding]:
    """It did not: nothing else is known."""
    is_late = isinstance(error.__cause__, TimeoutError)
    said = f"no answer within {within_s:g} s" if is_late else str(error)
    fix = (
        "correct user, password or vhost in NOTIFIER_BROKER_URL, or make them"
        if isinstance(error, BrokerRefused)
        else "start it, open the way to it, or correct NOTIFIER_BROKER_URL"
    )
    rest = [VERSION, OF_EXCHANGE, *map(of_queue_name, queues), ALARM]
    return [
        wrong(REACH, f"{place}: {said}", fix),
        *(not_checked(check, "RabbitMQ cannot be asked") for check in rest),
    ]


def of_version(properties: Mapping[str, object]) -> Finding:
    """`properties` are what the server says of itself."""
    product, version = str(properties.get("product")), str(properties.get("version"))
    if product != "RabbitMQ":
        return warning(VERSION, f"this is {product} {version}", "use RabbitMQ: all else is untried")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MIN_VERSION:
        return wrong(VERSION, f"{version} is too old", f"upgrade to RabbitMQ {_LEAST} or newer")
    return ok(VERSION, version)


def of_exchange(sight: Sight) -> Finding:
    """There as ours, or not yet."""
    match sight.state:
        case State.OURS:
            return ok(OF_EXCHANGE, "as it should be")
        case State.ABSENT:
            return ok(OF_EXCHANGE, "not there yet: the first process makes it")
        case State.UNLIKE:
            fix = f"delete exchange {EXCHANGE}, and restart: a process makes it anew"
            return wrong(OF_EXCHANGE, sight.reason, fix)
        case State.REFUSED:
            return wrong(OF_EXCHANGE, sight.reason, _RIGHTS)
        case State.UNKNOWN:
            return not_checked(OF_EXCHANGE, sight.reason)
        case _:
            assert_never(sight.state)


def of_queue(sight: Sight, queue: QueueKey, *, has_exchange: bool) -> Finding:
    """As of_exchange; a queue that is missing where the exchange is there is worth a look."""
    check, name = of_queue_name(queue), queue_name(queue)
    match sight.state:
        case State.OURS:
            return ok(check, "as it should be")
        case State.ABSENT if has_exchange:
            fix = "restart a process: it makes what its settings name"
            return warning(check, "not there, though the exchange is", fix)
        case State.ABSENT:
            return ok(check, "not there yet: the first process makes it")
        case State.UNLIKE:
            fix = (
                f"`rabbitmqctl delete_queue {name}` on its vhost, and restart: a process makes it "
                "anew, and what was in it is taken from Postgres again"
            )
            return wrong(check, sight.reason, fix)
        case State.REFUSED:
            return wrong(check, sight.reason, _RIGHTS)
        case State.UNKNOWN:
            return not_checked(check, sight.reason)
        case _:
            assert_never(sight.state)


def of_alarm(alarm: Alarm) -> Finding:
    """Whether the broker takes messages."""
    look = "`rabbitmq-diagnostics alarms` on the broker's machine says"
    match alarm:
        case Alarm.OFF:
            return ok(ALARM, "none: it takes messages")
        case Alarm.ON:
            fix = f"give it memory or disk; {look} which"
            return wrong(ALARM, "it is in alarm and takes no messages", fix)
        case Alarm.HIDDEN:
            because = "this user may not publish to the default exchange"
            return not_checked(ALARM, because, look)
        case Alarm.UNKNOWN:
            return not_checked(ALARM, "no answer", look)
        case _:
            assert_never(alarm)
