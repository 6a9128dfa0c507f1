"""Examines a RabbitMQ for `notifier doctor`: it tries what the processes do, and changes nothing.

Only what exists is declared with our arguments, so that RabbitMQ compares them and creates nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
)

from notifier.adapters.rabbitmq import diagnosis
from notifier.adapters.rabbitmq.channels import close_channel, open_channel
from notifier.adapters.rabbitmq.connection import (
    CONNECT_TIMEOUT_S,
    open_connection,
    quieten_driver,
)
from notifier.adapters.rabbitmq.connection_trial import explain_failure
from notifier.adapters.rabbitmq.diagnosis import (
    Alarm,
    Delivery,
    Inspection,
    Limits,
    Publishing,
    State,
)
from notifier.adapters.rabbitmq.topology import (
    EXCHANGE,
    DeclareMode,
    declare_exchange,
    declare_queue,
)
from notifier.adapters.rabbitmq.trials import (
    DEFAULT_EXCHANGE,
    is_permitted,
    measure_limits,
    refusal_to_publish,
    try_delivery,
    try_quorum,
    try_to_bind,
    try_to_consume,
    try_to_publish,
)
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.finding import Finding
from notifier.domain.notification import QueueKey

CHECK_TIMEOUT_S: Final = 5.0


async def examine_rabbitmq(url: str, queues: Sequence[QueueKey], *, place: str) -> list[Finding]:
    """Return the findings about a RabbitMQ; `place` is its URL without secrets.

    Raises nothing, whatever the state of the broker.
    """
    quieten_driver()
    try:
        async with open_connection(url, "doctor") as publishing:
            refusal = await refusal_to_publish(publishing)
        async with open_connection(url, "doctor") as connection:
            inspected = await _inspect(connection, queues, refusal)
    except BrokerUnavailable as error:
        fix = await explain_failure(url, error)
        return diagnosis.of_no_connection(
            error, queues, place=place, timeout_s=CONNECT_TIMEOUT_S, fix=fix
        )
    return await _examine(url, inspected, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What one connection found out. `is_silent`: RabbitMQ stopped answering."""

    is_silent: bool
    properties: Mapping[str, object]
    exchange: Inspection
    queues: Mapping[QueueKey, Inspection]
    publishing: Publishing


async def _inspect(
    connection: AbstractConnection, queues: Sequence[QueueKey], refusal: str = ""
) -> Inspected:
    """Inspect all on one connection. `refusal` is RabbitMQ's reply if the user may not publish."""
    inspector = _Inspector(connection)
    exchange = await inspector.inspect_exchange()
    inspections = {queue: await inspector.inspect_queue(queue) for queue in queues}
    may_use_exchange = exchange.state is State.MATCHES and not refusal
    alarm = await inspector.inspect_alarm(EXCHANGE if may_use_exchange else DEFAULT_EXCHANGE)
    return Inspected(
        is_silent=inspector.is_silent,
        properties=connection.server_properties,
        exchange=exchange,
        queues=inspections,
        publishing=Publishing(alarm, refusal),
    )


async def _examine(url: str, inspected: Inspected, place: str) -> list[Finding]:
    queues, exchange = inspected.queues, inspected.exchange
    tried = await _try_as_process(url, queues) if not inspected.is_silent else None
    return [
        diagnosis.of_reach(place),
        diagnosis.of_version(inspected.properties),
        diagnosis.of_limits(tried.limits if tried else None),
        diagnosis.of_exchange(exchange, inspected.publishing),
        *[
            diagnosis.of_queue(
                inspection,
                queue,
                has_exchange=exchange.state is not State.MISSING,
                has_quorum=tried is None or tried.quorum.get(queue, True),
            )
            for queue, inspection in queues.items()
        ],
        diagnosis.of_delivery(tried.delivery if tried else None, inspected.publishing),
        diagnosis.of_alarm(inspected.publishing.alarm),
    ]


class _Tried(NamedTuple):
    quorum: Mapping[QueueKey, bool]
    delivery: Delivery
    limits: Limits


async def _try_as_process(url: str, queues: Mapping[QueueKey, Inspection]) -> _Tried:
    """Try what needs connections of its own, one after the other: these may be limited."""
    existing = [queue for queue, each in queues.items() if each.state is State.MATCHES]
    missing = [queue for queue, each in queues.items() if each.state is State.MISSING]
    return _Tried(
        quorum=await try_quorum(url, existing),
        delivery=await try_delivery(url),
        limits=await measure_limits(url, queues=len(queues), missing=len(missing)),
    )


_Request = Callable[[Channel], Awaitable[object]]


class _Declare(Protocol):
    def __call__(self, channel: AbstractChannel, *, mode: DeclareMode) -> Awaitable[None]: ...


class _Inspector:
    """Inspects one thing at a time, each within 5 s, until RabbitMQ stops answering."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.is_silent = False

    async def inspect_exchange(self) -> Inspection:
        """Compare the exchange with our declaration; if missing, see whether we may create it."""
        return await self._inspect(declare_exchange)

    async def inspect_queue(self, queue: QueueKey) -> Inspection:
        """Compare a queue with our declaration, and see whether we may bind it and consume.

        For a missing one, see whether we may create it. If it is deleted between the check and the
        comparison, the comparison creates it, as any process would.
        """
        declared = await self._inspect(partial(declare_queue, queue=queue))
        if declared.state not in {State.MATCHES, State.MISSING}:
            return declared
        for attempt in (try_to_bind, try_to_consume):
            tried = await self._try(partial(attempt, queue=queue), checks_rights_only=True)
            if tried.state is not State.MATCHES:
                return tried
        return declared

    async def inspect_alarm(self, exchange: str) -> Alarm:
        """See whether RabbitMQ takes messages. This must be the last request."""
        if self.is_silent:
            return Alarm.UNKNOWN
        return await try_to_publish(self._connection, exchange)

    async def _inspect(self, declare: _Declare) -> Inspection:
        checked = await self._try(partial(declare, mode=DeclareMode.CHECK))
        match checked.state:
            case State.MATCHES:
                return await self._try(partial(declare, mode=DeclareMode.CREATE))
            case State.MISSING:
                tried = await self._try(partial(declare, mode=DeclareMode.DRY_RUN))
                return checked if tried.state is State.DIFFERS else tried
            case _:
                return checked

    async def _try(self, request: _Request, *, checks_rights_only: bool = False) -> Inspection:
        if self.is_silent:
            return Inspection(State.UNKNOWN, "RabbitMQ stopped answering")
        try:
            async with (
                asyncio.timeout(CHECK_TIMEOUT_S),
                _new_channel(self._connection) as channel,
            ):
                await request(channel)
        except (BrokerUnavailable, TimeoutError) as error:
            if checks_rights_only and is_permitted(error):
                return Inspection(State.MATCHES)
            return self._failed(error)
        return Inspection(State.MATCHES)

    def _failed(self, error: BrokerUnavailable | TimeoutError) -> Inspection:
        match error.__cause__:
            case ChannelNotFoundEntity() as cause:  # also of a queue whose node is down
                is_missing = "NOT_FOUND - no " in str(cause)
                return Inspection(State.MISSING if is_missing else State.UNKNOWN, str(cause))
            case ChannelAccessRefused() as cause:
                return Inspection(State.REFUSED, str(cause))
            case AMQPChannelError() as cause:
                return Inspection(State.DIFFERS, str(cause))
            case _:
                self.is_silent = True
                reason = str(error) or f"no answer within {CHECK_TIMEOUT_S:g} s"
                return Inspection(State.UNKNOWN, reason)


@asynccontextmanager
async def _new_channel(connection: AbstractConnection) -> AsyncIterator[Channel]:
    """Open a channel for one request: RabbitMQ closes it to report a failure."""
    channel = await open_channel(connection)
    try:
        yield channel
    finally:
        await close_channel(channel)
