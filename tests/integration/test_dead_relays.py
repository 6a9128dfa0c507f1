"""What a dead process had taken and may not have published, on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.heartbeat import open_heartbeat
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.notification import Claimed, NotificationId, WorkerId
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import Figures
from notifier.recovery.unpublished import MAX_DEAD_PER_RUN, UnpublishedRecovery
from tests.builders import (
    EMAIL_HIGH,
    QUEUES,
    SMS_HIGH,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)


@dataclass
class Scene:
    """One process that takes rows and dies, and one that looks after it."""

    url: str
    dying: PostgresStore
    mine: PostgresStore
    silent: list[tuple[WorkerId, int]] = field(default_factory=list)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
    )

    def __post_init__(self) -> None:
        self.relays = UnpublishedRecovery(
            store=self.mine, observer=self.metrics, queues=QUEUES, silent=lambda: self.silent
        )

    async def beat(self, beat: int = 1) -> None:
        async with open_heartbeat(ConnectionSettings(url=self.url), self.dying.worker) as heartbeat:
            await heartbeat.beat(
                kind="api", host="h", pid=1, beat=beat, figures=Figures(queues={}, providers={})
            )

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute(statement)
        await connection.close()

    async def taken(self, count: int = 1) -> list[Pointer]:
        """Rows that the dying process took, its counter at 1."""
        await self.beat()
        await self.mine.insert([a_notification() for _ in range(count)])
        return await self.take(self.dying, count)

    async def take(self, store: PostgresStore, most: int = 500) -> list[Pointer]:
        return [pointer for pointer, _ in await store.take_due(quotas(), most)]

    def dies(self, beat: int = 1) -> None:
        self.silent = [(self.dying.worker, beat)]

    async def due(self) -> int:
        return sum(each.due for each in (await self.mine.waiting(QUEUES)).values())


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    link = ConnectionSettings(url=database_url)
    async with open_store(link, worker_id()) as dying, open_store(link, worker_id()) as mine:
        yield Scene(database_url, dying, mine)


def ids(pointers: list[Pointer]) -> list[NotificationId]:
    return [pointer.id for pointer in pointers]


async def test_what_it_took_last_is_due_again_at_its_place_and_counted(scene: Scene) -> None:
    taken = await scene.taken(3)
    await scene.mine.insert([a_notification()])
    scene.dies()
    assert await scene.relays.run_once() == 3
    assert ids(await scene.take(scene.mine))[:3] == ids(taken)
    counted = scene.metrics.registry.get_sample_value(
        "notifier_rescues_total", {"queue": "email.high", "reason": "process_died"}
    )
    assert counted == 3


async def test_what_it_stored_as_taken_is_due_again(scene: Scene) -> None:
    await scene.beat()
    item = a_notification()
    await scene.dying.insert([item], published={item.id})
    scene.dies()
    assert await scene.relays.run_once() == 1
    assert ids(await scene.take(scene.mine)) == [item.id]


async def test_one_that_beats_is_left_alone_also_when_it_did_so_just_now(scene: Scene) -> None:
    await scene.taken()
    assert await scene.relays.run_once() == 0
    scene.dies()
    await scene.beat(2)
    assert await scene.relays.run_once() == 0
    scene.dies(2)
    assert await scene.relays.run_once() == 1


async def test_what_others_took_is_left_alone(scene: Scene) -> None:
    await scene.taken()
    await scene.mine.insert([a_notification()])
    other = await scene.take(scene.mine)
    scene.dies()
    assert await scene.relays.run_once() == 1
    assert not set(ids(await scene.take(scene.mine))) & set(ids(other))


async def test_what_it_took_long_before_it_had_published(scene: Scene) -> None:
    await scene.taken()
    await scene.execute("UPDATE notifications SET published_at = now() - interval '16 seconds'")
    scene.dies()
    assert await scene.relays.run_once() == 0


async def test_one_that_counts_as_dead_and_goes_on_keeps_what_it_takes_then(scene: Scene) -> None:
    await scene.taken()
    scene.dies()
    assert await scene.relays.run_once() == 1
    await scene.take(scene.dying)
    await scene.execute("UPDATE notifications SET published_at = now() + interval '6 seconds'")
    assert await scene.relays.run_once() == 0


async def test_what_died_long_ago_is_looked_after_all_the_same(scene: Scene) -> None:
    await scene.taken()
    await scene.execute(
        "UPDATE notifications SET published_at = published_at - interval '1 hour';"
        "UPDATE workers SET beat_at = beat_at - interval '1 hour'"
    )
    scene.dies()
    assert await scene.relays.run_once() == 1


async def test_a_pointer_that_did_arrive_is_claimed_and_its_copy_is_nobodys(scene: Scene) -> None:
    [arrived] = await scene.taken()
    scene.dies()
    assert await scene.relays.run_once() == 1
    [copy] = await scene.take(scene.mine)
    [claimed] = await scene.mine.claim([claim_request(arrived)])
    assert isinstance(claimed, Claimed)
    await scene.mine.record([a_result(claimed)])
    [again] = await scene.mine.claim([claim_request(copy)])
    assert not isinstance(again, Claimed)


async def test_what_is_claimed_before_the_copy_is_published_has_none(scene: Scene) -> None:
    [arrived] = await scene.taken()
    scene.dies()
    assert await scene.relays.run_once() == 1
    await scene.mine.claim([claim_request(arrived)])
    assert await scene.due() == 0


async def test_what_is_being_sent_stays_so(scene: Scene) -> None:
    await scene.mine.claim([claim_request(pointer) for pointer in await scene.taken()])
    scene.dies()
    assert await scene.relays.run_once() == 0


async def test_one_that_comes_back_takes_nothing_back_of_what_another_published(
    scene: Scene,
) -> None:
    taken = await scene.taken()
    scene.dies()
    await scene.relays.run_once()
    await scene.take(scene.mine)
    await scene.dying.unpublish(taken)
    assert await scene.due() == 0


async def test_it_is_asked_for_until_nothing_is_left_and_again_if_it_came_back(
    scene: Scene,
) -> None:
    await scene.taken(600)
    await scene.take(scene.dying)
    scene.dies()
    assert [await scene.relays.run_once() for _ in range(3)] == [500, 100, 0]
    await scene.take(scene.dying, 600)
    assert await scene.relays.run_once() == 0
    await scene.beat(2)
    scene.dies(2)
    assert await scene.relays.run_once() == 500


async def test_after_a_crash_loop_all_are_looked_after_some_at_a_time(scene: Scene) -> None:
    await scene.taken()
    scene.silent = [*((worker_id(), 1) for _ in range(MAX_DEAD_PER_RUN)), (scene.dying.worker, 1)]
    assert [await scene.relays.run_once() for _ in range(3)] == [0, 1, 0]


async def test_two_that_look_at_once_make_each_row_due_once(scene: Scene) -> None:
    await scene.mine.insert([a_notification(queue) for queue in (EMAIL_HIGH, SMS_HIGH)])
    await scene.beat()
    await scene.take(scene.dying)
    async with open_store(ConnectionSettings(url=scene.url), worker_id()) as other:
        found = [
            await store.rescue_from([(scene.dying.worker, 1)], QUEUES)
            for store in (scene.mine, other)
        ]
    assert found == [{EMAIL_HIGH: 1, SMS_HIGH: 1}, {}]


async def test_without_postgres_a_pass_raises_nothing_and_the_next_makes_up_for_it(
    scene: Scene,
) -> None:
    await scene.taken()
    scene.dies()
    async with open_proxy_for(scene.url) as proxy:
        link = ConnectionSettings(url=proxy.url(scene.url))
        async with open_store(link, worker_id()) as store:
            relays = UnpublishedRecovery(
                store=store, observer=scene.metrics, queues=QUEUES, silent=lambda: scene.silent
            )
            proxy.cut()
            assert await relays.run_once() == 0
            proxy.heal()
            assert await relays.run_once() == 1
