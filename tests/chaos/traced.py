"""Makes a process write a trace, and gives it a fast provider, by wrapping its ports.

Recipients `fast-<ms>-...` of the traced provider are accepted after that time without a call to the
sandbox. The recipient `poison` kills the worker whose call begins. Pointers to `FULL` are published
in full messages, however slowly that queue is drained.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from notifier.domain.controls import BreakerState, Controls
from notifier.domain.notification import Channel, Claimed, Priority, QueueKey
from notifier.domain.outcome import Accepted, Outcome, Throttled, Unavailable
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE, Message, Pointer, Receiver
from notifier.ports.provider import Envelope, Provider
from notifier.ports.store import ClaimReply, ClaimRequest
from tests.chaos.trace import Key, Kind, TraceWriter, answer_file

FULL: Final = QueueKey(Channel("push"), Priority.MEDIUM)
PROVIDER: Final = "fcm"
FAST: Final = "fast-"
POISON: Final = "poison"
ANSWER_AGE_S: Final = 0.02
"""How old the knowledge of the answer may be: reading it for each call would cost too much."""
HANG_POLL_S: Final = 0.05


class Answer(StrEnum):
    """How the traced provider answers every call."""

    AS_USUAL = ""
    HANG = "hang"
    THROTTLE = "throttle"
    UNAVAILABLE = "unavailable"


class TracedProvider:
    """Writes each call to the trace. Only the provider PROVIDER has other answers than usual."""

    def __init__(self, inner: Provider, trace: TraceWriter, answers: Path) -> None:
        self.name = inner.name
        self._inner, self._trace, self._answers = inner, trace, answers
        self._last, self._read_at = Answer.AS_USUAL, 0.0

    async def send(self, envelope: Envelope) -> Outcome:
        keys = [Key(str(envelope.id), envelope.claim)]
        self._trace.write(Kind.CALLED, self.name, keys)
        if envelope.recipient == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == PROVIDER:
            while self._answer() is Answer.HANG:
                await asyncio.sleep(HANG_POLL_S)
            if self._answer() is Answer.THROTTLE:
                self._trace.write(Kind.THROTTLED, self.name, keys)
                return Throttled(code="429")
            if self._answer() is Answer.UNAVAILABLE:
                return Unavailable(code="503")
        if not envelope.recipient.startswith(FAST):
            return await self._inner.send(envelope)
        await asyncio.sleep(int(envelope.recipient.split("-")[1]) / 1000)
        self._trace.write(Kind.ACCEPTED, self.name, keys)
        return Accepted()

    def _answer(self) -> Answer:
        now = time.monotonic()
        if now - self._read_at > ANSWER_AGE_S:
            self._read_at = now
            self._last = Answer(self._answers.read_text()) if self._answers.exists() else Answer("")
        return self._last


class TracedStore:
    """Delegates to a store and writes its claims to the trace."""

    def __init__(self, inner: Any, trace: TraceWriter) -> None:
        self._inner, self._trace = inner, trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def claim(self, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        return await self._claim(self._inner.claim, requests)

    async def claim_urgent(self, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        return await self._claim(self._inner.claim_urgent, requests)

    async def _claim(self, claim: Any, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        wanted = [Key(str(request.id), request.claim + 1) for request in requests]
        self._trace.write(Kind.REQUESTED, keys=wanted)
        replies: Sequence[ClaimReply] = await claim(requests)
        got = [Key(str(reply.id), reply.claim) for reply in replies if isinstance(reply, Claimed)]
        self._trace.write(Kind.CLAIMED, keys=got)
        return replies


def _keys(pointers: Sequence[Pointer]) -> list[Key]:
    return [Key(str(pointer.id), pointer.claim + 1) for pointer in pointers]


class TracedReceiver:
    """Hands messages on and writes them to the trace."""

    def __init__(self, inner: Receiver, trace: TraceWriter) -> None:
        self._trace = trace
        self._inner = inner
        self.connection_lost = inner.connection_lost

    def deliver(self, message: Message) -> None:
        self._trace.write(Kind.MESSAGE, str(message.pointers[0].queue), _keys(message.pointers))
        self._inner.deliver(message)


class TracedBroker:
    """Delegates to a broker, fills the messages of FULL, and traces publishes and deliveries."""

    def __init__(self, inner: Any, trace: TraceWriter) -> None:
        self._inner, self._trace = inner, trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int]
    ) -> Sequence[bool]:
        full = {**max_batch, FULL: MAX_POINTERS_PER_MESSAGE}
        confirms: Sequence[bool] = await self._inner.publish(pointers, full)
        confirmed = [pointer for pointer, sure in zip(pointers, confirms, strict=True) if sure]
        self._trace.write(Kind.PUBLISHED, keys=_keys(confirmed))
        return confirms

    @asynccontextmanager
    async def subscribe(self, queue: QueueKey, receiver: Receiver) -> AsyncIterator[Any]:
        traced = TracedReceiver(receiver, self._trace)
        async with self._inner.subscribe(queue, traced) as subscription:
            yield subscription


class TracedControls:
    """Delegates to the store of controls and writes to the trace what a read found stopped."""

    def __init__(self, inner: Any, trace: TraceWriter) -> None:
        self._inner, self._trace = inner, trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self) -> Controls:
        controls: Controls = await self._inner.read()
        stopped = [
            *(str(pause.scope) for pause in controls.pauses),
            *(
                f"provider:{breaker.provider}"
                for breaker in controls.breakers
                if breaker.state is BreakerState.OPEN
            ),
        ]
        self._trace.write(Kind.CONTROLS, " ".join(stopped))
        return controls


def trace_into(path: Path) -> None:
    """Make everything that this process opens from now on write to the trace at `path`."""
    from notifier.app import process, providers  # noqa: PLC0415 loads the whole product

    trace = TraceWriter(path)
    for module, name, kind in (
        (process, "open_store", TracedStore),
        (process, "open_broker", TracedBroker),
        (process, "open_controls", TracedControls),
    ):
        vars(module)[name] = _opening(vars(module)[name], kind, trace)
    vars(providers)["open_provider"] = _opening(
        vars(providers)["open_provider"], TracedProvider, trace, answer_file(path)
    )


def _opening(
    opens: Callable[..., AbstractAsyncContextManager[Any]], kind: Callable[..., Any], *more: object
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with opens(*args, **kwargs) as inner:
            yield kind(inner, *more)

    return opened
