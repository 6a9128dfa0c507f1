"""Whatever is lost, doubled, late or killed: nothing is lost, and no claim is sent twice.

Stories of a deployment on the real store. The broker and the workers do all that brokers and
workers do wrong; at the end of each story what looks after them must bring every row to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import Enum, auto
from typing import TypeVar, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from notifier.domain.notification import FINAL, Claimed, NotificationId, QueueKey, Status
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import Fail, Retry, Settle, decide
from notifier.ports import ClaimAsk, Pointer, Result
from tests.builders import a_notification, a_result, ask, quotas
from tests.property.deployment import (
    ON_AMBIGUOUS,
    POLICY,
    STORY_QUEUES,
    Deployment,
    Worker,
)

T = TypeVar("T")
LONG, SHORT = timedelta(days=20), timedelta(seconds=60)
ROWS_MOST = 3
"""Few, so that much happens to each."""
ROUNDS = 20
"""In which all must end: tries, and the deaths of workers, are fewer."""
ROUND = timedelta(hours=3)
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        Accepted(code="250"),
        Accepted(code="250"),
        Refused(code="550"),
        Throttled(code="451", after=timedelta(seconds=1)),
        Unavailable(code="421"),
        Unavailable(code="535", spends=False),
        Ambiguous(code="timeout"),
    ]
)


class Published(Enum):
    """What became of a publish: how often it arrived, and whether that was confirmed or not."""

    WELL = (1, True)
    DOUBLED = (2, True)
    LOST = (0, True)
    UNSURE = (1, False)
    UNSENT = (0, False)


class Answer(Enum):
    """Of a claim: heard; not asked for, and the messages go back unspent; lost, and the rows go
    back; lost, and that fails as well.
    """

    HEARD = auto()
    UNASKED = auto()
    LOST = auto()
    FORGOTTEN = auto()


MOSTLY = st.sampled_from([True, True, True, False])
MOSTLY_WELL = st.sampled_from([Published.WELL] * 4 + list(Published))
MOSTLY_HEARD = st.sampled_from([Answer.HEARD] * 4 + list(Answer))


class Loop(Enum):
    """What looks after a deployment."""

    UNDERTAKER = auto()
    SWEEPER = auto()
    RESCUER = auto()


class Story(RuleBasedStateMachine):
    """One deployment's life; `opened` makes the deployment."""

    def __init__(self, opened: Callable[[], Deployment]) -> None:
        super().__init__()
        self.of = opened()
        self.lasting: set[NotificationId] = set()
        self.is_forgetful = False

    @initialize(count=st.integers(1, 2))
    def workers_start(self, count: int) -> None:
        for _ in range(count):
            self.of.start_worker()

    # ---- what callers and the relay do ----------------------------------------------------------

    @precondition(lambda self: len(self.of.ledger.accepted) < ROWS_MOST)
    @rule(
        queue=st.sampled_from(STORY_QUEUES),
        ttl=st.sampled_from([LONG, SHORT]),
        delay=st.sampled_from([None, None, timedelta(seconds=5)]),
        times=st.integers(1, 2),
        data=st.data(),
    )
    def accept(
        self,
        queue: QueueKey,
        ttl: timedelta,
        delay: timedelta | None,
        times: int,
        data: st.DataObject,
    ) -> None:
        """Twice where the first answer was lost."""
        new = a_notification(queue, ttl=ttl, delay=delay)
        for _ in range(times):
            self.of.do(self.of.relay.insert([new]))
        self.of.ledger.accepted.add(new.id)
        if ttl == LONG:
            self.lasting.add(new.id)
        self.relay_takes_and_publishes(data)

    @precondition(lambda self: not self.of.messages and self.of.ledger.accepted)
    @rule(data=st.data())
    def relay_takes_and_publishes(self, data: st.DataObject) -> None:
        for pointer, _ in self.of.do(self.of.relay.take_due(quotas(*STORY_QUEUES), 3)):
            fate = data.draw(MOSTLY_WELL)
            arrived, is_confirmed = fate.value
            self.of.messages += [pointer] * arrived
            if not is_confirmed:
                self.of.unconfirmed.append(pointer)

    @precondition(lambda self: self.of.unconfirmed)
    @rule()
    def relay_takes_back_what_was_not_confirmed(self) -> None:
        self.of.do(self.of.relay.unpublish(self.of.unconfirmed))
        self.of.unconfirmed.clear()

    # ---- what workers do ------------------------------------------------------------------------

    @precondition(lambda self: self.of.messages)
    @rule(data=st.data(), fate=MOSTLY_HEARD, is_redelivered=st.booleans())
    def a_worker_takes_messages(
        self, data: st.DataObject, fate: Answer, is_redelivered: bool
    ) -> None:
        """It claims, calls and records; at each step some are left where they are."""
        worker = self._worker(data)
        pointers = self._taken(data, self.of.messages)
        self._claim(worker, [ask(one) for one in pointers], fate)
        if is_redelivered:
            self.of.messages += pointers
        goes_on: bool = data.draw(MOSTLY)
        if worker.in_hand and goes_on:
            self.providers_are_called(data)
        is_recorded: bool = data.draw(MOSTLY)
        if worker.results and is_recorded:
            self.results_are_recorded(data, 1)

    @precondition(lambda self: any(worker.in_hand for worker in self.of.living))
    @rule(data=st.data())
    def providers_are_called(self, data: st.DataObject) -> None:
        worker = self._worker(data, lambda one: one.in_hand)
        outcome: Outcome = data.draw(OUTCOMES)
        for claimed in self._taken(data, worker.in_hand):
            self.of.ledger.send((claimed.id, claimed.claim))
            worker.results.append(result_of(claimed, outcome))

    @precondition(lambda self: any(worker.in_hand for worker in self.of.living))
    @rule(data=st.data())
    def claims_go_back_unspent(self, data: st.DataObject) -> None:
        worker = self._worker(data, lambda one: one.in_hand)
        self._release(worker, self._taken(data, worker.in_hand))

    @precondition(lambda self: any(one.results for one in [*self.of.living, *self.of.gone]))
    @rule(data=st.data(), times=st.integers(1, 2))
    def results_are_recorded(self, data: st.DataObject, times: int) -> None:
        """Late, by workers that are taken for dead; twice where the first answer was lost."""
        whose = [one for one in [*self.of.living, *self.of.gone] if one.results]
        worker = data.draw(st.sampled_from(whose))
        results = self._taken(data, worker.results)
        for _ in range(times):
            self._record(worker, results)

    @precondition(lambda self: self.is_forgetful)
    @rule(data=st.data())
    def a_worker_releases_what_it_does_not_send(self, data: st.DataObject) -> None:
        worker = self._worker(data)
        mine = self.of.run(worker.store.claimed_by_me())
        if orphans := [one for one in mine if not worker.is_busy_with(one.id)]:
            self._give_back(worker, orphans)

    # ---- who dies, and what looks after it ------------------------------------------------------

    @precondition(lambda self: any(one.is_busy for one in self.of.living) or self.is_forgetful)
    @rule(data=st.data(), leaves_row=st.booleans(), is_buried=st.booleans())
    def a_worker_dies_and_another_starts(
        self, data: st.DataObject, leaves_row: bool, is_buried: bool
    ) -> None:
        self.of.kill(self._worker(data), leaves_row=leaves_row)
        self.of.start_worker()
        if is_buried:
            self._bury(data)

    @precondition(lambda self: any(one.is_busy for one in self.of.living))
    @rule(data=st.data())
    def a_worker_is_frozen_buried_and_continues(self, data: st.DataObject) -> None:
        """What it had not begun goes back; what it had begun is recorded some time."""
        worker = self._worker(data, lambda one: one.is_busy)
        self.of.kill(worker, leaves_row=True)
        self._bury(data)
        self.of.thaw(worker)
        if worker.in_hand:
            self._release(worker, worker.in_hand)

    @precondition(lambda self: self.of.ledger.accepted)
    @rule(
        span=st.sampled_from([timedelta(seconds=s) for s in (2, 11, 90)]),
        losing=st.sampled_from([False, False, False, True]),
        loops=st.sets(st.sampled_from(Loop)),
        data=st.data(),
    )
    def time_passes(
        self, span: timedelta, losing: bool, loops: set[Loop], data: st.DataObject
    ) -> None:
        """Meanwhile the broker may be wiped, and some look after what was left."""
        self.of.pass_time(span)
        if losing:
            self.of.messages.clear()
        if Loop.UNDERTAKER in loops:
            self._bury(data)
        if Loop.SWEEPER in loops:
            self.of.do(self.of.relay.sweep())
        if Loop.RESCUER in loops:
            self._rescue()
        self.relay_takes_and_publishes(data)

    # ---- the end --------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Let all workers die but one that works: in some rounds everything ends."""
        for worker in list(self.of.living):
            self.of.kill(worker, leaves_row=False)
        worker = self.of.start_worker()
        for _ in range(ROUNDS):
            self._one_round(worker)
            if all(row.status in FINAL for row in self.of.ledger.rows.values()):
                break
        ends = {id_: Status(row.status) for id_, row in self.of.ledger.rows.items()}
        assert set(ends.values()) <= FINAL, "something moves every row"
        assert Status.EXPIRED not in {ends[id_] for id_ in self.lasting}, "long before its time"

    def _one_round(self, worker: Worker) -> None:
        self.of.do(self.of.undertaker.run_once())
        self._rescue()
        taken = self.of.do(self.of.relay.take_due(quotas(*STORY_QUEUES), 500))
        pointers = [*self.of.messages, *(pointer for pointer, _ in taken)]
        self.of.messages.clear()
        if pointers:
            self._claim_and_send(worker, pointers)
        self.of.do(self.of.relay.sweep())
        self.of.pass_time(ROUND)

    def _claim_and_send(self, worker: Worker, pointers: Sequence[Pointer]) -> None:
        asks = [ask(pointer) for pointer in pointers]
        answers = self.of.do(worker.store.claim(asks), by=worker.id)
        claimed = [one for one in answers if isinstance(one, Claimed)]
        for one in claimed:
            self.of.ledger.send((one.id, one.claim))
        if claimed:
            self._record(worker, [result_of(one, Accepted(code="250")) for one in claimed])

    # ---- steps ----------------------------------------------------------------------------------

    def _worker(
        self, data: st.DataObject, that: Callable[[Worker], object] = lambda _: True
    ) -> Worker:
        return data.draw(st.sampled_from([one for one in self.of.living if that(one)]))

    def _taken(self, data: st.DataObject, from_: list[T]) -> list[T]:
        """One to three."""
        count = data.draw(st.integers(1, min(3, len(from_))))
        return [from_.pop(data.draw(st.integers(0, len(from_) - 1))) for _ in range(count)]

    def _give_back(self, worker: Worker, asks: Sequence[ClaimAsk]) -> None:
        """A worker that gives a row back does not send it, whichever message it came by."""
        self.of.do(worker.store.give_back(asks), by=worker.id)
        calls = {(one.id, one.claim + 1) for one in asks}
        worker.in_hand = [one for one in worker.in_hand if (one.id, one.claim) not in calls]

    def _claim(self, worker: Worker, asks: Sequence[ClaimAsk], fate: Answer) -> None:
        if fate is Answer.UNASKED:
            self._give_back(worker, asks)
            return
        answers = self.of.do(worker.store.claim(asks), by=worker.id)
        claimed = [one for one in answers if isinstance(one, Claimed)]
        wished = {(one.id, one.claim + 1) for one in asks}
        assert {(one.id, one.claim) for one in claimed} <= wished, "claimed where the pointer says"
        if fate is Answer.HEARD:
            worker.in_hand += claimed
        if fate is Answer.LOST:
            self._give_back(worker, asks)
        self.is_forgetful |= fate is Answer.FORGOTTEN

    def _release(self, worker: Worker, claimed: Sequence[Claimed]) -> None:
        self._give_back(worker, [ClaimAsk(id=one.id, claim=one.claim - 1) for one in claimed])

    def _record(self, worker: Worker, results: Sequence[tuple[Result, float]]) -> None:
        outcomes = {(one.id, one.claim): one.outcome for one, _ in results}
        self.of.do(worker.store.record(results), by=worker.id, recorded=outcomes)

    def _bury(self, data: st.DataObject) -> None:
        self.of.do(self.of.undertaker.run_once())
        self.relay_takes_and_publishes(data)

    def _rescue(self) -> None:
        """Whether anything was lost is not asked: to rescue in vain must do no harm."""
        now = self.of.run(self.of.relay.database_now())
        for queue in STORY_QUEUES:
            self.of.do(self.of.relay.rescue(queue, now), rescuing=True)


def result_of(claimed: Claimed, outcome: Outcome) -> tuple[Result, float]:
    """What an attempt records of an outcome."""
    decision = decide(
        outcome,
        tries=claimed.tries,
        max_tries=claimed.max_tries,
        policy=POLICY,
        on_ambiguous=ON_AMBIGUOUS[claimed.queue.channel],
        draw=0.5,
    )
    match decision:
        case Settle():
            return a_result(claimed, outcome=outcome.name)
        case Retry(after=after, spends=spends):
            return a_result(
                claimed, Status.RETRYING, outcome=outcome.name, after=after, spends=spends
            )
        case Fail(reason=reason, spends=spends):
            return a_result(
                claimed, Status.FAILED, outcome=outcome.name, reason=reason, spends=spends
            )


def test_nothing_is_lost_and_no_claim_is_sent_twice(database_url: str) -> None:
    with Deployment.on(database_url) as opened:
        run_state_machine_as_test(
            cast("type[Story]", lambda: Story(opened)),  # any factory will do
            settings=settings(stateful_step_count=50),
        )
