"""The delivery side of one worker on a real Postgres. The test is its broker and its consumers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from notifier.adapters.postgres.blobs import PostgresBlobs, open_blobs
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.templates import open_templates
from notifier.adapters.telemetry.metrics import Metrics
from notifier.adapters.templating.renderer import open_renderer
from notifier.app.draining import running_attempts
from notifier.delivery.attempt import Attempts
from notifier.delivery.delivery_rules import DeliveryRules, ProviderBinding
from notifier.delivery.files import FileLoader
from notifier.delivery.templates import TemplateCache, TemplateContents
from notifier.domain.errors import StoreUnavailable
from notifier.domain.holds import Holds
from notifier.domain.notification import (
    WAITING,
    Channel,
    NewNotification,
    NotificationView,
    Priority,
    QueueKey,
    Status,
)
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import AmbiguityRule, OnAmbiguous, RetryPolicy
from notifier.ports.attempts import ClaimedRow, EndedCall
from notifier.ports.broker import Pointer
from notifier.ports.provider import Envelope
from notifier.ports.store import ClaimRequest
from tests.builders import QUEUES, claim_request, due_ranges, row_pointer, worker_id
from tests.doubles import Draws

Response = Outcome | BaseException | asyncio.Event

QUICK = RetryPolicy(base=timedelta(milliseconds=1), factor=2, cap=timedelta(seconds=1), tries=3)
REJECTED = 77
"""The `max_tries` of the rows that `reject` makes Postgres reject."""
NIL = "00000000-0000-0000-0000-000000000000"
"""`claimed_by` of a row that waits."""


def reject(sqlstate: str, event: str, table: str, when: str) -> str:
    """Return SQL that makes Postgres raise an error for the rows that match `when`."""
    return f"""
        CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'rejected' USING ERRCODE = '{sqlstate}'; END $$;
        CREATE TRIGGER reject BEFORE {event} ON {table} FOR EACH ROW WHEN ({when})
            EXECUTE FUNCTION reject()
    """


class Held:
    """A pointer that the worker holds. Implements ports.attempts.HeldPointer."""

    def __init__(self, pointer: Pointer) -> None:
        self.pointer = pointer
        self.settled = asyncio.Event()

    def begin(self, at: float) -> None:
        del at

    def settle(self) -> None:
        assert not self.settled.is_set(), "settled twice"
        self.settled.set()


class ScriptedProvider:
    """A provider that returns or raises `responses` in order, and Accepted after them.

    Where a response is an event, the call waits for it and then returns Accepted.
    """

    name = "script"

    def __init__(self, *responses: Response) -> None:
        self.responses = list(responses)
        self.calls: list[Envelope] = []
        self.called = asyncio.Event()

    async def send(self, envelope: Envelope) -> Outcome:
        self.calls.append(envelope)
        self.called.set()
        response = self.responses.pop(0) if self.responses else Accepted()
        if isinstance(response, BaseException):
            raise response
        if isinstance(response, asyncio.Event):
            await response.wait()
            return Accepted()
        return response


class ScriptedLiveness:
    """Is alive as `states` say, in order, and always after them."""

    def __init__(self, *states: bool) -> None:
        self.states = list(states)

    def is_alive(self) -> bool:
        return self.states.pop(0) if self.states else True

    async def wait_until_alive(self) -> None:
        while not self.is_alive():
            await asyncio.sleep(0)


class Outcomes(list[tuple[QueueKey, str, Outcome]]):
    """Keeps the outcome of each call. Implements OutcomeListener and OutcomeJudge."""

    def on_outcome(self, call: EndedCall) -> None:
        self.append((call.queue, call.provider, call.outcome))

    def judge(self, provider: str, outcome: Outcome) -> Outcome:
        del provider
        return outcome


class ScriptedHolds:
    """Holds that a test sets. Implements ports.controls.HoldSource."""

    def __init__(self) -> None:
        self.present = Holds()

    def holds(self) -> Holds:
        return self.present


class Worker(NamedTuple):
    """The delivery side of one worker, with what it uses."""

    store: PostgresStore
    reader: PostgresReader
    blobs: PostgresBlobs
    attempts: Attempts
    provider: ScriptedProvider
    outcomes: Outcomes
    registry: CollectorRegistry
    published: set[ClaimRequest]
    holds: ScriptedHolds

    async def accept(self, *items: NewNotification) -> None:
        await self.store.insert(items)

    async def due(self) -> list[Pointer]:
        """Publish what is due and was not published before, as a relay does."""
        read = await self.store.read_due(due_ranges())
        pointers = [
            row_pointer(row) for row in read.rows if row.claimed_by is None and not row.is_expired
        ]
        new = [pointer for pointer in pointers if claim_request(pointer) not in self.published]
        self.published.update(map(claim_request, new))
        return new

    async def hold(self, *items: NewNotification) -> list[Held]:
        """Accept, publish and deliver; returns the pointers in the order of the items."""
        await self.accept(*items)
        pointers = {pointer.id: pointer for pointer in await self.due()}
        return [Held(pointers[item.id]) for item in items]

    async def claim(self, *held: Held, is_urgent: bool = False) -> Sequence[ClaimedRow]:
        return await self.attempts.claim(held, is_urgent=is_urgent)

    async def claim_one(self, item: NewNotification) -> tuple[Held, ClaimedRow]:
        [held] = await self.hold(item)
        [row] = await self.claim(held)
        return held, row

    async def run(self, pointer: Pointer) -> Held:
        """Do what the scheduling side does with one pointer, until it is settled."""
        held = Held(pointer)
        await self.attempts.wait_until_ready()
        for row in await self.claim(held):
            await self.attempts.attempt(row)
        await held.settled.wait()
        return held

    async def run_until_final(self, item: NewNotification) -> Status:
        while True:
            for pointer in await self.due():
                await self.run(pointer)
            status = await self.status(item)
            if status not in WAITING:
                return status

    async def view(self, item: NewNotification | Pointer) -> NotificationView:
        view = await self.reader.get(item.id)
        assert view is not None
        return view

    async def status(self, item: NewNotification | Pointer) -> Status:
        return (await self.view(item)).status

    def counted(self, name: str, **labels: str) -> float:
        """Return the sum of a counter over the label sets that have these labels."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == f"notifier_{name}_total" and labels.items() <= sample.labels.items()
        )


@asynccontextmanager
async def open_worker(
    url: str,
    *responses: Response,
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
    alive: Sequence[bool] = (),
    send_timeout_s: float = 5.0,
    reader_url: str | None = None,
    max_held_bytes: int = 1_000_000,
) -> AsyncIterator[Worker]:
    """Open a worker whose provider responds as given.

    At the end of the block it stops as a worker does.
    """
    async with AsyncExitStack() as stack:
        link = ConnectionSettings(url=url, statement_timeout_s=0.5)
        store = await stack.enter_async_context(open_store(link, worker_id()))
        reader = await stack.enter_async_context(
            open_reader(ConnectionSettings(url=reader_url or url))
        )
        holds = ScriptedHolds()
        blobs = await stack.enter_async_context(open_blobs(link))
        provider, outcomes, registry = ScriptedProvider(*responses), Outcomes(), CollectorRegistry()
        attempts = Attempts(
            store=store,
            files=FileLoader(blobs, max_held_bytes),
            observer=Metrics(
                QUEUES, {Channel("email"): ["script"]}, version="0", registry=registry
            ),
            rules=DeliveryRules(
                bindings={
                    Channel("email"): ProviderBinding(
                        provider=provider,
                        ambiguity=AmbiguityRule(on_ambiguous=on_ambiguous, tries=8),
                    )
                },
                policies=dict.fromkeys(Priority, QUICK),
            ),
            liveness=ScriptedLiveness(*alive),
            holds=holds,
            random=Draws(0.5),
            send_timeout_s=send_timeout_s,
            outcome_listeners=[outcomes],
            judge=outcomes,
            contents=TemplateContents(
                versions=TemplateCache(await stack.enter_async_context(open_templates(link))),
                renderer=await stack.enter_async_context(open_renderer()),
                max_bytes=262_144,
            ),
        )
        await stack.enter_async_context(running_attempts(attempts))
        yield Worker(store, reader, blobs, attempts, provider, outcomes, registry, set(), holds)


def when_it_fails(worker: Worker, method: str, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that is set once a method of the store has raised StoreUnavailable."""
    call, failed = getattr(worker.store, method), asyncio.Event()

    async def observed(items: Sequence[object]) -> object:
        try:
            return await call(items)
        except StoreUnavailable:
            failed.set()
            raise

    monkeypatch.setattr(worker.store, method, observed)
    return failed
