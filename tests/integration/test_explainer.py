"""Why a notification waits, on a real Postgres: what the rows, pauses and breakers there say."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres import explaining
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.leases import encode_progress
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.credentials import Mode
from notifier.domain.due import DueClass, Position
from notifier.domain.explanation.ahead import ahead_of, rows_before
from notifier.domain.explanation.facts import Explanation, QueueRules, WaitingRow
from notifier.domain.holds import PauseParking
from notifier.domain.notification import Channel, NewNotification, NotificationId, Status
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import TenantId
from notifier.ports.heartbeat import Figures, QueueFigures
from notifier.ports.keys import Author
from notifier.ports.leases import Progress
from notifier.ports.queries import View
from notifier.ports.store import Parked, ParkRequest
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.explainer import DeploymentExplainer
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import (
    EMAIL_LOW,
    QUEUES,
    a_notification,
    a_result,
    claim_request,
    new_id,
    worker_id,
)
from tests.doubles import FixedFigures
from tests.live_rows import claimed, published

if TYPE_CHECKING:
    from tests.live_rows import Connection

PROVIDERS: Final = {
    Channel("email"): ["smtp"],
    Channel("sms"): ["twilio"],
    Channel("push"): ["fcm"],
}
SHOP, BANK = TenantId("shop"), TenantId("bank")
DEPLOYMENT: Final = View()
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
ADA: Final = Author(actor="key:8Rk2vQ0ZpLx1")
OF_SHOP: Final = Scope(ScopeKind.TENANT, "shop")
RATE_PER_S: Final = 50.0
RULES: Final = {
    queue: QueueRules(
        provider=PROVIDERS[queue.channel][0],
        provider_rate_per_s=RATE_PER_S,
        consumer_rate_per_s=None,
        target_wait_s=60.0,
    )
    for queue in QUEUES
}
IDLE: Final = QueueFigures(consumers=1, done=9, service_s=0.1, limited_by=Limit.NEED)
BUSY: Final = QueueFigures(
    consumers=5, busy=5, done=900, done_per_s=40.0, service_s=0.1, limited_by=Limit.RATE
)


@dataclass(frozen=True, kw_only=True)
class World:
    """One process that explains, one that sends, and their Postgres."""

    store: PostgresStore
    controls: PostgresControls
    reader: PostgresReader
    explainer: DeploymentExplainer
    figures: FixedFigures

    async def explain(
        self, id_: NotificationId | NewNotification, view: View = DEPLOYMENT
    ) -> Explanation:
        which = id_.id if isinstance(id_, NewNotification) else id_
        explanation = await self.explainer.explain(which, view)
        assert explanation is not None
        return explanation

    async def kinds(self, item: NewNotification, view: View = DEPLOYMENT) -> list[str]:
        return [blocker.kind.value for blocker in (await self.explain(item, view)).blockers]

    async def parked(
        self, item: NewNotification, by: Scope | None, after_s: float = 3600.0
    ) -> None:
        """Store a notification and park it, as a worker does: by a pause or by quiet hours."""
        if by is None:
            [row] = await claimed(self.store, item)
            await self.store.park([ParkRequest(id=item.id, claim=row.claim, after_s=after_s)])
        else:
            [pointer] = await published(self.store, item)
            pauses = [PauseParking(by, after_s)]
            [reply] = await self.store.claim([claim_request(pointer)], pauses=pauses)
            assert isinstance(reply, Parked)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as world:
        yield world


@asynccontextmanager
async def open_world(url: str) -> AsyncIterator[World]:
    settings, worker = ConnectionSettings(url=url), worker_id()
    figures = FixedFigures(Figures(queues=dict.fromkeys(QUEUES, IDLE), providers={}))
    async with (
        open_store(settings, worker) as store,
        open_controls(settings, worker) as controls,
        open_reader(settings) as reader,
    ):
        explainer = DeploymentExplainer(
            reader=reader,
            gates=QueueGates(
                controls,
                queues=QUEUES,
                providers=PROVIDERS,
                probes=Probes(),
                observer=Metrics(QUEUES, PROVIDERS, version="0"),
            ),
            cluster=ClusterFigures(own=figures, detector=FailureDetector()),
            broker=InProcessBroker(QUEUES),
            rules=RULES,
        )
        yield World(
            store=store, controls=controls, reader=reader, explainer=explainer, figures=figures
        )


def of_shop(**changes: Any) -> NewNotification:
    return a_notification(EMAIL_LOW, tenant=SHOP, tag="sale", **changes)


def names(explanation: Explanation) -> list[tuple[str, str | None, str | None]]:
    return [(each.kind.value, each.name, each.detail) for each in explanation.blockers]


async def test_what_is_scheduled_is_held_until_its_time(world: World) -> None:
    item = of_shop(delay=HOUR / 2)
    await world.store.insert([item])
    explanation = await world.explain(item)
    [blocker] = explanation.blockers
    view = await world.reader.get(item.id)
    assert view is not None
    assert (blocker.kind, blocker.until_at) == ("scheduled", view.due_at)
    assert explanation.subject.status is Status.SCHEDULED
    assert explanation.subject.expires_at == view.expires_at
    assert explanation.expected is not None
    assert view.due_at is not None
    assert explanation.expected.earliest_at == view.due_at.replace(microsecond=0)


async def test_a_retry_is_held_by_its_last_attempt_until_it_is_due(world: World) -> None:
    item = of_shop()
    [row] = await claimed(world.store, item)
    await world.store.record(
        [
            a_result(
                row, Status.RETRYING, outcome="unavailable", code="503", after=timedelta(minutes=5)
            )
        ]
    )
    explanation = await world.explain(item)
    assert names(explanation) == [("retry", "smtp", f"attempt {row.claim}: unavailable 503")]
    assert explanation.blockers[0].until_at is not None
    assert explanation.blockers[0].until_at > explanation.subject.as_of_at


async def test_a_parked_row_names_the_pause_that_parked_it_until_that_ends(world: World) -> None:
    item = of_shop()
    await world.controls.pause(OF_SHOP, note="wrong price", for_s=None, author=ADA)
    await world.parked(item, OF_SHOP)
    explanation = await world.explain(item)
    assert names(explanation) == [("pause", "tenant:shop", "by key:8Rk2vQ0ZpLx1: wrong price")]
    assert explanation.expected is None
    await world.controls.resume(OF_SHOP)
    explanation = await world.explain(item)  # before a waker has made it due
    assert [(each.kind, each.name) for each in explanation.blockers] == [("pause", "tenant:shop")]
    assert explanation.expected is not None
    await world.store.wake()
    assert await world.kinds(item) == []


async def test_a_row_that_quiet_hours_put_off_names_them(
    world: World, connection: Connection
) -> None:
    item = of_shop()
    await world.parked(item, None)
    explanation = await world.explain(item)
    assert names(explanation) == [("quiet_hours", "shop", None)]
    await connection.execute("INSERT INTO tenants (name) VALUES ('shop')")
    now = datetime.now(UTC)
    start, end = ((now + HOUR * hours).strftime("%H:%M") for hours in (-3, 3))
    hours = QuietHours(
        start=time.fromisoformat(start), end=time.fromisoformat(end), time_zone="UTC"
    )
    assert await world.controls.put_quiet_hours(SHOP, hours, ADA)
    assert names(await world.explain(item)) == [("quiet_hours", "shop", f"{start} to {end}, UTC")]
    awake = of_shop(content=b'{"body":"b","time_zone":"Etc/GMT+12"}')
    asleep = of_shop(content=b'{"body":"b"}')
    await world.store.insert([awake, asleep])
    assert "quiet_hours" not in await world.kinds(awake)
    assert (await world.kinds(asleep))[0] == "quiet_hours"


async def test_a_pause_shows_who_began_it_last_and_a_tenant_does_not_see_it(world: World) -> None:
    item = of_shop()
    await world.store.insert([item])
    scopes = [
        Scope(ScopeKind.QUEUE, "email.low"),
        Scope(ScopeKind.CHANNEL, "email"),
        Scope(ScopeKind.PROVIDER, "smtp"),
        Scope(ScopeKind.TAG, "sale"),
        OF_SHOP,
    ]
    for number, scope in enumerate(scopes):
        for author in (Author(actor="anonymous"), ADA):
            await world.controls.pause(
                scope, note=f"note {number}", for_s=600.0 - number, author=author
            )
    others = [Scope(ScopeKind.QUEUE, "sms.low"), Scope(ScopeKind.TENANT, "bank")]
    for scope in others:
        await world.controls.pause(scope, note="of others", for_s=None, author=ADA)
    explanation = await world.explain(item)
    assert names(explanation) == [
        ("pause", str(scope), f"by key:8Rk2vQ0ZpLx1: note {number}")
        for number, scope in enumerate(scopes)
    ]
    seen = await world.explain(item, View(SHOP))
    assert names(seen) == [("pause", str(scope), None) for scope in scopes]
    assert [each.until_at for each in seen.blockers] == [
        each.until_at for each in explanation.blockers
    ]


async def test_an_open_breaker_and_a_missing_worker_are_named(world: World) -> None:
    item = of_shop()
    await world.store.insert([item])
    await world.controls.open_breaker("smtp", "configuration", code="554 5.7.1", wait_s=60.0)
    await world.controls.open_breaker("twilio", "errors", code="503", wait_s=60.0)
    world.figures.value = Figures(queues={}, providers={})
    explanation = await world.explain(item)
    assert names(explanation) == [
        ("no_worker", None, "no worker is running"),
        ("breaker", "smtp", "configuration 554 5.7.1"),
    ]
    assert explanation.blockers[1].until_at is not None
    assert explanation.expected is None


async def test_what_stands_before_it_and_the_rate_of_its_queue_say_when_it_is_sent(
    world: World,
) -> None:
    queues = {**dict.fromkeys(QUEUES, IDLE), EMAIL_LOW: BUSY}
    world.figures.value = Figures(queues=queues, providers={})
    before, item = [of_shop() for _ in range(250)], of_shop()
    await world.store.insert(before)
    await world.store.insert([item])
    explanation = await world.explain(item)
    assert names(explanation) == [
        ("rate", "smtp", "50 calls per second"),
        ("behind", "email.low", "250 stand before it"),
    ]
    assert (explanation.ahead.count, explanation.ahead.is_exact) == (250, True)
    expected, now = explanation.expected, explanation.subject.as_of_at
    assert expected is not None
    assert expected.latest_at is not None
    # All but the window of 40 at 50 per second. All of them, and 83 retries, at half the measured
    # 40 per second, and the promised wait.
    assert now + timedelta(seconds=3) < expected.earliest_at <= now + timedelta(seconds=4.2)
    greatest = timedelta(seconds=2 * 333 / 40 + 60 + 5)
    assert now + greatest <= expected.latest_at < now + greatest + timedelta(seconds=1)
    seen = await world.explain(item, View(SHOP))
    assert names(seen)[1:] == [("behind", "email.low", "at least 250 stand before it")]


async def test_what_is_being_sent_or_has_ended_has_no_blockers(world: World) -> None:
    sending, sent, expired = of_shop(), of_shop(), of_shop(ttl=timedelta(0))
    await world.controls.pause(OF_SHOP, note="", for_s=None, author=ADA)
    await claimed(world.store, sending)
    [row] = await claimed(world.store, sent)
    await world.store.record([a_result(row)])
    await world.store.insert([expired])
    for item, status in (
        (sending, Status.SENDING),
        (sent, Status.SENT),
        (expired, Status.EXPIRED),
    ):
        explanation = await world.explain(item)
        assert explanation.subject.status is status
        assert (explanation.blockers, explanation.ahead.count) == ((), 0)
        assert explanation.expected is None


async def test_only_its_tenant_the_deployment_and_its_mode_get_an_explanation(
    world: World,
) -> None:
    item = of_shop()
    tested = a_notification(EMAIL_LOW, tenant=SHOP, test_channel="email")
    await world.store.insert([item])
    await world.store.insert([tested])
    views = [View(tenant, mode) for tenant in (None, SHOP, BANK) for mode in Mode]
    seen = {
        (view.tenant, view.mode, which.id)
        for view in views
        for which in (item, tested)
        if await world.explainer.explain(which.id, view) is not None
    }
    assert seen == {
        (tenant, mode, which.id)
        for tenant in (None, SHOP)
        for mode, which in ((Mode.LIVE, item), (Mode.TEST, tested))
    }
    assert await world.explainer.explain(new_id(), DEPLOYMENT) is None


async def test_a_queue_that_no_channel_has_is_named(world: World, connection: Connection) -> None:
    item = of_shop()
    await world.store.insert([item])
    for table in ("live", "notifications"):
        await connection.execute(f"UPDATE {table} SET queue = 'fax.low'")
    explanation = await world.explain(item)
    assert names(explanation) == [
        ("no_channel", "fax", "no channel of the settings has this queue")
    ]
    assert explanation.expected is None


Placed = tuple[DueClass, float, bool, bool]
"""Class, seconds from now, whether it is claimed and whether it has expired."""


async def place(connection: Connection, rows: Sequence[Placed]) -> list[NotificationId]:
    """Write rows of email.low."""
    ids = [new_id() for _ in rows]
    await connection.execute(
        """WITH new AS (
               SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::float8[], $4::boolean[],
                                    $5::boolean[]) AS t (id, class, at, is_claimed, is_expired)
           ), stored AS (
               INSERT INTO notifications (id, expires_at, queue, recipient, content, metadata)
               SELECT id, now() + interval '1 day', 'email.low', 'a@example.com', '{}', '{}'
               FROM new
           )
           INSERT INTO live (id, claimed_by, created_at, due_at, ready_at, expires_at, size, class,
                             queue)
           SELECT id, CASE WHEN is_claimed THEN gen_random_uuid()
                           ELSE '00000000-0000-0000-0000-000000000000' END,
                  now(), now() + at * interval '1 s', now(),
                  now() + CASE WHEN is_expired THEN interval '-1 s' ELSE interval '1 day' END,
                  2, class, 'email.low'
           FROM new""",
        ids,
        [of[0].value for of in rows],
        [of[1] for of in rows],
        [of[2] for of in rows],
        [of[3] for of in rows],
    )
    return ids


async def test_the_rows_before_it_are_those_that_wait_at_an_earlier_place(
    world: World, connection: Connection
) -> None:
    draw = random.Random(7)
    rows: list[Placed] = [
        (draw.choice(list(DueClass)), draw.uniform(-600, 600), draw.random() < 0.2, False)
        for _ in range(400)
    ]
    rows += [(DueClass.FIRST, -700.0, False, True) for _ in range(10)]
    ids = await place(connection, rows)
    waiting = {
        row["id"]: (DueClass(row["class"]), Position(row["due_at"], row["id"]))
        for row in await connection.fetch(
            "SELECT id, class, due_at FROM live WHERE expires_at > now()"
            " AND claimed_by = '00000000-0000-0000-0000-000000000000'"
        )
    }
    for id_ in draw.sample([id_ for id_ in ids if id_ in waiting], 40):
        subject = await world.reader.subject(id_, DEPLOYMENT)
        assert isinstance(subject, WaitingRow)
        until = rows_before(subject)
        counts = await world.reader.count_before(subject, until)
        for due_class, position in until.items():
            expected = sum(
                of is due_class and at < position and other != id_
                for other, (of, at) in waiting.items()
            )
            found = counts.get(due_class)
            assert (found.count if found else 0) == expected
            assert found is None or found.is_exact
        assert ahead_of(subject.due_class, counts).count <= len(waiting)


async def test_rows_up_to_the_mark_of_the_lease_are_not_read(
    world: World, connection: Connection
) -> None:
    ids = await place(connection, [(DueClass.FIRST, -100.0 + at, False, False) for at in range(5)])
    rows = await connection.fetch("SELECT due_at, id FROM live ORDER BY due_at, id")
    mark = Position(rows[1]["due_at"], rows[1]["id"])
    await connection.execute(
        "INSERT INTO leases (queue, progress) VALUES ('email.low', $1::text::jsonb)",
        encode_progress(Progress(marks={DueClass.FIRST: mark})),
    )
    assert (await world.explain(ids[4])).ahead.count == 2


async def test_counting_stops_at_a_number_of_rows_of_all_classes(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "MAX_COUNTED_AHEAD", 10)
    first: Placed = (DueClass.FIRST, -50.0, False, False)
    back: Placed = (DueClass.BACK, -50.0, False, False)
    await place(connection, [first] * 6 + [back] * 3)
    [last] = await place(connection, [(DueClass.FIRST, -1.0, False, False)])
    ahead = (await world.explain(last)).ahead
    assert (ahead.count, ahead.is_exact) == (9, True)
    await place(connection, [first])
    explanation = await world.explain(last)
    assert (explanation.ahead.count, explanation.ahead.is_exact) == (10, False)
    assert explanation.expected is not None
    assert explanation.expected.latest_at is None
