"""A process that stops between two steps: the ports are wrapped, nothing in the product knows.

A step is `port method:before|after`: insert (accept), take_due and publish (relay), claim, record,
ack. `kill` ends the process there; `raise` loses the answer there, again and again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from notifier.domain.errors import StoreUnavailable
from notifier.ports.broker import Delivery

STORE: Final = frozenset({"insert", "take_due", "claim", "record"})
BROKER: Final = frozenset({"publish", "ack"})


class Trigger:
    """Counts what passes the step; from `items` on it breaks there."""

    def __init__(self, step: str, *, how: str, items: int) -> None:
        self.method, _, self._side = step.partition(":")
        self._how, self._items = how, items
        self._passed = 0

    def is_due(self, side: str, count: int) -> bool:
        """Whether to break on this side of a call that carries so many."""
        if side != self._side or not count:
            return False
        self._passed += count
        if self._passed < self._items:
            return False
        self._passed = 0
        return True

    def strike(self) -> None:
        """End here, or lose the answer."""
        if self._how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise StoreUnavailable("chaos")

    def around(
        self, call: Callable[..., Awaitable[Sequence[Any]]]
    ) -> Callable[..., Awaitable[Sequence[Any]]]:
        """The call, broken before or after it does its work."""

        async def broken(*words: Any, **named: Any) -> Sequence[Any]:
            is_take = self.method == "take_due"
            if self.is_due("before", 1 if is_take else len(words[0])):
                self.strike()
            done = await call(*words, **named)
            if self.is_due("after", len(done if is_take else words[0])):
                self.strike()
            return done

        return broken


class Broken:
    """Hands everything on to a port, and breaks at one of its methods."""

    def __init__(self, inner: Any, trigger: Trigger) -> None:
        self._inner, self._trigger = inner, trigger

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._trigger.around(found) if name == self._trigger.method else found


class BrokenBroker(Broken):
    """A broker never raises for a publish: unconfirmed is how it loses an answer."""

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
    async def subscribe(self, *words: Any, **named: Any) -> AsyncIterator[Any]:
        async with self._inner.subscribe(*words, **named) as subscription:
            yield BrokenSubscription(subscription, self._trigger)


class BrokenSubscription(Broken):
    """An ack has no answer to lose: it breaks by the kill alone."""

    def ack(self, delivery: Delivery) -> None:
        is_ack = self._trigger.method == "ack"
        if is_ack and self._trigger.is_due("before", 1):
            self._trigger.strike()
        self._inner.ack(delivery)
        if is_ack and self._trigger.is_due("after", 1):
            self._trigger.strike()


def break_at(step: str, *, how: str, items: int) -> None:
    """Let every store and broker that this process opens break at the step."""
    from notifier.adapters.postgres.store import open_store  # noqa: PLC0415 loads much
    from notifier.app import process  # noqa: PLC0415 loads the whole product

    trigger = Trigger(step, how=how, items=items)
    if trigger.method not in STORE | BROKER:
        raise ValueError(f"no step {step}; there are {sorted(STORE | BROKER)}")
    if trigger.method in STORE:
        opened = _opening(open_store, Broken, trigger)
        vars(process)["open_store"] = opened
    else:
        vars(process)["open_broker"] = _opening(process.open_broker, BrokenBroker, trigger)


def _opening(
    opens: Callable[..., AbstractAsyncContextManager[Any]], kind: type[Broken], trigger: Trigger
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def opened(*words: Any, **named: Any) -> AsyncIterator[Any]:
        async with opens(*words, **named) as inner:
            yield kind(inner, trigger)

    return opened
