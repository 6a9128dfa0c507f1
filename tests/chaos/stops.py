"""Makes a process fail between two steps by wrapping its ports; the product is unchanged.

A step is `method:before|after`, where the method is insert (accept), read_due (relay), publish (of
a worker's relay, or directly by an API), claim, record or ack. `kill` kills the process there;
`raise` loses the reply there repeatedly.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from notifier.domain.errors import StoreUnavailable
from notifier.ports.broker import Message

STORE: Final = frozenset({"insert", "read_due", "claim", "record"})
BROKER: Final = frozenset({"publish", "ack"})
METHODS: Final = {"claim_urgent": "claim"}
"""Methods of the store that are the same step as another one."""


class Trigger:
    """Counts the items that pass the step and fails at every `items`."""

    def __init__(self, step: str, *, how: str, items: int) -> None:
        self.method, _, self._side = step.partition(":")
        self._how, self._items = how, items
        self._passed = 0

    def is_due(self, side: str, count: int) -> bool:
        """Whether to fail on this side of a call that carries `count` items."""
        if side != self._side or not count:
            return False
        self._passed += count
        if self._passed < self._items:
            return False
        self._passed = 0
        return True

    def strike(self) -> None:
        """Kill the process, or lose the reply."""
        if self._how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise StoreUnavailable("chaos")

    def around(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wrap a call so that it fails before or after its work.

        The items of a read are the rows that it returns; before it, a read counts as one.
        """

        async def broken(*args: Any, **kwargs: Any) -> Any:
            is_read = self.method == "read_due"
            if self.is_due("before", 1 if is_read else len(args[0])):
                self.strike()
            done = await call(*args, **kwargs)
            if self.is_due("after", len(done.rows if is_read else args[0])):
                self.strike()
            return done

        return broken


class Broken:
    """Delegates to a port and fails at one of its methods."""

    def __init__(self, inner: Any, trigger: Trigger) -> None:
        self._inner, self._trigger = inner, trigger

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        is_broken = METHODS.get(name, name) == self._trigger.method
        return self._trigger.around(found) if is_broken else found


class BrokenBroker(Broken):
    """A broker whose publish fails. Publish never raises: a lost confirm is reported as False."""

    async def publish(self, pointers: Sequence[Any], *more: Any) -> Sequence[bool]:
        publish = self._inner.publish
        if self._trigger.method == "publish":
            publish = self._trigger.around(publish)
        try:
            confirmed: Sequence[bool] = await publish(pointers, *more)
        except StoreUnavailable:
            return [False] * len(pointers)
        return confirmed

    @asynccontextmanager
    async def subscribe(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with self._inner.subscribe(*args, **kwargs) as subscription:
            yield BrokenSubscription(subscription, self._trigger)


class BrokenSubscription(Broken):
    """A subscription that is killed at an ack, which has no reply to lose."""

    def ack(self, message: Message) -> None:
        count = len(message.pointers) if self._trigger.method == "ack" else 0
        if self._trigger.is_due("before", count):
            self._trigger.strike()
        self._inner.ack(message)
        if self._trigger.is_due("after", count):
            self._trigger.strike()


def break_at(step: str, *, how: str, items: int) -> None:
    """Make every store and broker that this process opens fail at the step."""
    from notifier.adapters.postgres.store import open_store  # noqa: PLC0415 loads much
    from notifier.app import process  # noqa: PLC0415 loads the whole product

    trigger = Trigger(step, how=how, items=items)
    if trigger.method not in STORE | BROKER:
        raise ValueError(f"unknown step {step}; expected one of {sorted(STORE | BROKER)}")
    if trigger.method in STORE:
        opened = _opening(open_store, Broken, trigger)
        vars(process)["open_store"] = opened
    else:
        vars(process)["open_broker"] = _opening(process.open_broker, BrokenBroker, trigger)


def _opening(
    opens: Callable[..., AbstractAsyncContextManager[Any]], kind: type[Broken], trigger: Trigger
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with opens(*args, **kwargs) as inner:
            yield kind(inner, trigger)

    return opened
