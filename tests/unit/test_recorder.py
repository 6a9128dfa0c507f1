"""When results are recorded, on a virtual clock, and what is left when the recorder ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.recorder import FULL_BATCH, MAX_BATCH, MIN_INTERVAL_S, Finished, Recorder
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.notification import Claimed, Status
from notifier.ports.attempts import ClaimedRow
from notifier.ports.broker import Pointer
from notifier.ports.store import AttemptResult, AttemptStore, ClaimRequest, Recorded
from tests.builders import EMAIL_HIGH, QUEUES, a_result, claim_request, new_id
from tests.virtual_time import run_virtually

Results = Sequence[tuple[AttemptResult, float]]


class Held:
    """A pointer that counts how often it was settled."""

    def __init__(self, pointer: Pointer) -> None:
        self.pointer = pointer
        self.settled = 0

    def begin(self, at: float) -> None:
        del at

    def settle(self) -> None:
        self.settled += 1


@dataclass
class Table:
    """Records results; a record takes `takes_s`. Implements what the recorder uses of the store.

    It rejects results with the code `bad`, and those with the outcome `never` whatever their code.
    """

    takes_s: float = 0.0
    is_away: bool = False
    is_away_without_texts: bool = False
    batches: list[tuple[float, int]] = field(default_factory=list)
    results: list[AttemptResult] = field(default_factory=list)
    late_by_s: list[float] = field(default_factory=list)

    async def record(self, results: Results) -> Sequence[Recorded]:
        loop = asyncio.get_running_loop()
        self.batches.append((loop.time(), len(results)))
        await asyncio.sleep(self.takes_s)
        if any(result.code == "bad" or result.outcome == "never" for result, _ in results):
            raise StoreRejected("bad")
        if self.is_away or (self.is_away_without_texts and not results[0][0].code):
            raise StoreUnavailable("away")
        self.results += [result for result, _ in results]
        self.late_by_s += [ended_ago_s for _, ended_ago_s in results]
        return [Recorded(Status.SENT, late=False, age_s=0.0) for _ in results]


class Bench:
    """A recorder that runs on a virtual clock, and what was handed over to it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.in_flight = set[ClaimRequest]()
        self.held: list[Held] = []
        self.recorder = Recorder(
            store=cast("AttemptStore", table),
            observer=Metrics(QUEUES, {}, version="0", registry=CollectorRegistry()),
            in_flight=self.in_flight,
        )

    def put(self, count: int = 1, *, outcome: str = "accepted", code: str = "250") -> None:
        """Hand over the results of attempts that ended now."""
        now = asyncio.get_running_loop().time()
        for _ in range(count):
            claimed = Claimed(
                id=new_id(),
                claim=1,
                queue=EMAIL_HIGH,
                recipient="ok@example.com",
                content=b"{}",
                tries=0,
                max_tries=None,
                waited_s=0.0,
            )
            held = Held(Pointer(queue=EMAIL_HIGH, id=claimed.id, claim=0, published_at=0.0))
            self.held.append(held)
            request = claim_request(held.pointer)
            self.in_flight.add(request)
            result, _ = a_result(claimed, outcome=outcome, code=code)
            result = msgspec.structs.replace(result, finished_at_monotonic=now)
            self.recorder.put(Finished(ClaimedRow(claimed, request, now, held), result))

    @property
    def settled(self) -> list[int]:
        return [held.settled for held in self.held]

    @property
    def batches(self) -> list[int]:
        return [size for _, size in self.table.batches]


@asynccontextmanager
async def recording(table: Table) -> AsyncIterator[Bench]:
    """Run a recorder; everything must be recorded or abandoned at the end of the block."""
    bench = Bench(table)
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.recorder.run())
        await asyncio.sleep(1)  # as if the worker had been idle
        yield bench
        bench.recorder.close()


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    monkeypatch.setattr("notifier.delivery.recorder.time", SimpleNamespace(monotonic=monotonic))


def test_after_a_pause_a_result_is_written_at_once_and_the_next_ones_together() -> None:
    async def run() -> None:
        async with recording(Table()) as bench:
            bench.put()
            await asyncio.sleep(MIN_INTERVAL_S / 100)
            assert bench.settled == [1]
            for _ in range(5):
                bench.put()
                await asyncio.sleep(MIN_INTERVAL_S / 100)
            assert bench.batches == [1]
            await asyncio.sleep(MIN_INTERVAL_S)
            assert bench.batches == [1, 5]
            assert bench.settled == [1] * 6

    run_virtually(run())


def test_so_many_results_as_fill_a_batch_are_written_at_once() -> None:
    async def run() -> None:
        async with recording(Table()) as bench:
            bench.put()
            await asyncio.sleep(MIN_INTERVAL_S / 100)
            bench.put(FULL_BATCH)
            await asyncio.sleep(MIN_INTERVAL_S / 100)
            assert bench.batches == [1, FULL_BATCH]

    run_virtually(run())


def test_results_that_come_during_a_write_form_the_next_batches_of_at_most_500() -> None:
    async def run() -> None:
        async with recording(Table(takes_s=1.0)) as bench:
            bench.put()
            await asyncio.sleep(0.5)
            bench.put(2 * MAX_BATCH + 7)
            await asyncio.sleep(5)
            assert bench.batches == [1, MAX_BATCH, MAX_BATCH, 7]
            assert set(bench.settled) == {1}

    run_virtually(run())


def test_results_are_written_again_with_their_age_until_postgres_is_back() -> None:
    async def run() -> None:
        table = Table(is_away=True)
        async with recording(table) as bench:
            bench.put(3)
            await asyncio.sleep(60)
            assert set(bench.batches) == {3}
            assert 60 < len(bench.batches) < 80  # once a second in the end
            assert bench.settled == [0] * 3
            table.is_away = False
            await asyncio.sleep(1)
            assert bench.settled == [1] * 3
            assert all(60 <= ago < 61 for ago in table.late_by_s)
            assert len(table.results) == 3

    run_virtually(run())


def test_a_rejected_result_is_written_again_without_texts_and_the_others_once() -> None:
    async def run() -> None:
        async with recording(table := Table()) as bench:
            bench.put(10)
            bench.put(code="bad")
            bench.put(10)
            await asyncio.sleep(1)
            assert bench.settled == [1] * 21
            assert sorted(result.code for result in table.results) == [""] + ["250"] * 20
            assert bench.in_flight == set()

    run_virtually(run())


def test_a_result_that_is_rejected_whatever_its_texts_is_settled_and_stays_in_flight() -> None:
    async def run() -> None:
        async with recording(table := Table()) as bench:
            bench.put(10)
            bench.put(outcome="never")
            bench.put(10)
            await asyncio.sleep(1)
            assert bench.settled == [1] * 21
            assert len(table.results) == 20
            assert bench.in_flight == {claim_request(bench.held[10].pointer)}
            await bench.recorder.finish(5)

    run_virtually(run())


def test_a_rejected_result_waits_for_postgres_and_is_then_written_without_texts() -> None:
    async def run() -> None:
        async with recording(table := Table()) as bench:
            bench.put(code="bad")
            table.is_away = True
            await asyncio.sleep(10)
            assert bench.settled == [0]
            table.is_away = False
            await asyncio.sleep(2)
            assert bench.settled == [1]
            assert [result.code for result in table.results] == [""]

    run_virtually(run())


def test_finish_waits_until_everything_is_written() -> None:
    async def run() -> None:
        async with recording(Table(takes_s=1.0)) as bench:
            bench.put(MAX_BATCH + 1)
            await bench.recorder.finish(5)
            assert set(bench.settled) == {1}
            assert bench.in_flight == set()

    run_virtually(run())


def test_finish_of_an_idle_recorder_returns_at_once() -> None:
    async def run() -> None:
        async with recording(Table()) as bench:
            await bench.recorder.finish(0)
            bench.put()
            await bench.recorder.finish(1)
            assert bench.settled == [1]

    run_virtually(run())


def test_finish_abandons_what_cannot_be_written_within_its_time() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with recording(Table(is_away=True)) as bench:
            bench.put(2)
            await asyncio.sleep(1)
            bench.put(1)
            began_at = loop.time()
            await bench.recorder.finish(5)
            assert loop.time() - began_at == pytest.approx(5)
            assert bench.settled == [0, 0, 0]
            assert bench.in_flight == {claim_request(held.pointer) for held in bench.held}
            await bench.recorder.finish(5)  # nothing is left to wait for
        assert loop.time() - began_at == pytest.approx(5)

    run_virtually(run())


def test_finish_keeps_nothing_in_flight_that_was_recorded_in_the_batch_that_it_abandons() -> None:
    async def run() -> None:
        async with recording(Table(is_away_without_texts=True)) as bench:
            bench.put()
            bench.put(code="bad")
            with capture_logs() as logs:
                await bench.recorder.finish(5)
            unrecorded = [entry["id"] for entry in logs if entry["event"] == "outcome_unrecorded"]
            assert unrecorded == [str(bench.held[1].pointer.id)]
            assert bench.settled == [1, 0]
            assert bench.in_flight == {claim_request(bench.held[1].pointer)}

    run_virtually(run())
