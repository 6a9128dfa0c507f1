"""No loop ends by an error of the store: each one repeats its work."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from notifier.adapters.postgres.errors import at_start, translated
from notifier.adapters.postgres.migrate import revisions
from notifier.adapters.postgres.revisions import known_revisions
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import SendPermission
from notifier.domain.errors import (
    ConfigError,
    StoreConflict,
    StoreError,
    StoreRefused,
    StoreRejected,
    StoreUnavailable,
)
from notifier.domain.notification import Channel, Priority, QueueKey, WorkerId
from notifier.ports.heartbeat import DeadProcess, HeartbeatReply
from notifier.ports.leases import HeldLease, Progress
from notifier.ports.store import DueRange, DueRead
from notifier.recovery.loss_check import LossCheck
from notifier.recovery.orphans import OrphanRecovery
from notifier.recovery.pruner import Pruner
from notifier.recovery.sweeper import Sweeper
from notifier.scheduling.cluster.lease_keeper import LeaseKeeper
from notifier.scheduling.cluster.membership import Membership, ProcessIdentity
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, QUEUES, worker_id
from tests.doubles import FixedFigures

ERRORS: Final = (StoreUnavailable, StoreConflict, StoreRefused, StoreRejected)


class Failing:
    """A store whose every method raises."""

    def __init__(self, error: type[StoreError]) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def call(*_: object, **__: object) -> None:
            raise self._error(f"{name} failed")

        return call


class OneLease:
    """Implements ports.leases.HeldLeases."""

    def held(self) -> dict[QueueKey, HeldLease]:
        lease = HeldLease(
            queue=EMAIL_HIGH, term=1, progress=Progress(), renewed_at=0.0, passed_at=0.0
        )
        return {EMAIL_HIGH: lease}


class ManyLeases(OneLease):
    """The same for several queues."""

    def __init__(self, queues: Sequence[QueueKey]) -> None:
        self._queues = queues

    def held(self) -> dict[QueueKey, HeldLease]:
        [lease] = super().held().values()
        return {queue: replace(lease, queue=queue) for queue in self._queues}


class Alone:
    """The only process. Implements recovery.orphans.Processes and ports.heartbeat.LiveWorkers."""

    departures = 0
    is_available = True

    def is_alive(self) -> bool:
        return True

    def dead(self) -> list[DeadProcess]:
        return []

    def has_left(self, _: WorkerId) -> bool:
        return False

    def live_workers(self) -> list[WorkerId]:
        return []

    def beating_workers(self) -> list[WorkerId]:
        return []


@pytest.mark.parametrize("error", ERRORS)
class TestLoops:
    async def test_the_tasks_of_every_process_are_repeated(self, error: type[StoreError]) -> None:
        store: Any = Failing(error)
        observer = metrics()
        await Sweeper(store=store, observer=observer).run_once()
        await LossCheck(store=store, observer=observer).run_once()
        await Pruner(
            store=store,
            observer=observer,
            retention=timedelta(days=1),
            audit_retention=timedelta(days=1),
            keep_keys=timedelta(days=1),
            keep_event_days=7,
        ).run_once()
        gates = QueueGates(store, queues=QUEUES, providers={}, probes=Probes(), observer=observer)
        await gates.run_once()
        assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED

    async def test_a_process_without_a_heartbeat_is_not_ready(
        self, error: type[StoreError]
    ) -> None:
        identity = ProcessIdentity(id=worker_id(), kind="worker", host="h", pid=1)
        heartbeat: Any = Failing(error)
        own = FixedFigures()
        membership = Membership(heartbeat, identity=identity, own=own, observer=metrics())
        await membership.run_once()
        assert list(membership.why_not_ready()) == ["postgres: beat failed"]

    async def test_leases_are_renewed_again(self, error: type[StoreError]) -> None:
        store: Any = Failing(error)
        keeper = LeaseKeeper(
            store=store,
            worker=worker_id(),
            workers=Alone(),
            broker=Alone(),
            observer=metrics(),
            may_hold=True,
        )
        await keeper.run_once()
        assert keeper.held() == {}

    async def test_orphans_are_looked_for_again(self, error: type[StoreError]) -> None:
        store: Any = Failing(error)
        rules: Any = None
        recovery = OrphanRecovery(
            store=store, observer=metrics(), leases=OneLease(), processes=Alone(), rules=rules
        )
        assert await recovery.run_once() == 0


class SlowQueue:
    """A store that cannot read one queue; it records which others it read by themselves."""

    def __init__(self, slow: QueueKey) -> None:
        self._slow = slow
        self.read_alone = set[QueueKey]()

    async def look(self, ranges: Sequence[DueRange]) -> DueRead:
        queues = {range_.queue for range_ in ranges}
        if self._slow in queues:
            raise StoreUnavailable("statement timeout")
        if len(queues) == 1:
            self.read_alone |= queues
        return DueRead([], datetime.now(UTC), 0, 0)


async def test_one_queue_that_cannot_be_read_does_not_stop_the_recovery_of_many() -> None:
    queues = [QueueKey(Channel(f"c{number}"), Priority.HIGH) for number in range(15)]
    slow = SlowQueue(queues[7])
    store: Any = slow
    no_rules: Any = None
    recovery = OrphanRecovery(
        store=store,
        observer=metrics(),
        leases=ManyLeases(queues),
        processes=Alone(),
        rules=no_rules,
    )
    for _ in range(2):
        await recovery.run_once()
    assert slow.read_alone == {*queues} - {queues[7]}


class TestTranslation:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (asyncpg.InsufficientPrivilegeError("permission denied"), StoreRefused),
            (asyncpg.InvalidAuthorizationSpecificationError("not permitted"), StoreRefused),
            (asyncpg.InvalidPasswordError("password"), StoreRefused),
            (asyncpg.InvalidCatalogNameError("no database"), StoreRefused),
            (asyncpg.InvalidSchemaNameError("no schema"), StoreRefused),
            (asyncpg.UndefinedObjectError("no type"), StoreRefused),
            (asyncpg.DuplicatePreparedStatementError("exists"), StoreRefused),
            (asyncpg.InvalidSQLStatementNameError("missing"), StoreRefused),
            (asyncpg.InvalidCachedStatementError("cached plan"), StoreUnavailable),
            (asyncpg.InternalServerError("cache lookup failed"), StoreUnavailable),
            (asyncpg.ClientConfigurationError("no certificate"), StoreRefused),
            (ssl.SSLCertVerificationError("self-signed"), StoreRefused),
            (ConnectionError("PostgreSQL server rejected SSL upgrade"), StoreRefused),
            (ConnectionRefusedError("refused"), StoreUnavailable),
        ],
    )
    def test_what_an_operator_must_mend_is_refused(
        self, error: Exception, expected: type[StoreError]
    ) -> None:
        with pytest.raises(StoreError) as raised, translated():
            raise error
        assert type(raised.value) is expected

    def test_an_error_that_nobody_has_foreseen_shows_no_values(self) -> None:
        with pytest.raises(StoreUnavailable) as raised, translated():
            raise asyncpg.RaiseError("ada@example.com is not allowed")
        assert str(raised.value) == "Postgres: RaiseError (SQLSTATE P0001)"

    def test_an_error_about_a_value_does_not_show_it(self) -> None:
        with pytest.raises(StoreRejected) as raised, translated():
            raise asyncpg.InvalidTextRepresentationError(
                'invalid input syntax for type uuid: "ada@example.com"'
            )
        assert str(raised.value) == "Postgres: InvalidTextRepresentationError (SQLSTATE 22P02)"

    def test_at_the_start_it_is_a_wrong_setting(self) -> None:
        with pytest.raises(ConfigError, match="permission denied"), at_start(), translated():
            raise asyncpg.InsufficientPrivilegeError("permission denied")
        with pytest.raises(StoreUnavailable), at_start(), translated():
            raise ConnectionRefusedError("refused")


def test_a_refusal_is_reported_until_it_is_over() -> None:
    reply = HeartbeatReply(now=time.time(), others=[], refusal="Postgres: role app lacks SELECT")

    class Replying:
        async def beat(self, **_: object) -> HeartbeatReply:
            return reply

    heartbeat: Any = Replying()
    identity = ProcessIdentity(id=worker_id(), kind="worker", host="h", pid=1)
    membership = Membership(heartbeat, identity=identity, own=FixedFigures(), observer=metrics())
    asyncio.run(membership.run_once())
    assert list(membership.why_not_ready()) == ["Postgres: role app lacks SELECT"]
    assert not membership.is_alive()
    reply = HeartbeatReply(now=time.time(), others=[])
    asyncio.run(membership.run_once())
    assert membership.is_alive()


def test_the_revisions_are_those_of_the_migrations() -> None:
    assert known_revisions() == revisions()


def metrics() -> Metrics:
    return Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
