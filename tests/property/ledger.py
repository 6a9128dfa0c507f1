"""What must hold of all notifications after every statement, whoever ran it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from notifier.domain.notification import (
    FINAL,
    WAITING,
    NotificationId,
    Status,
    WorkerId,
    is_legal,
)
from notifier.domain.outcome import Accepted

RESCUED_AFTER_S: Final = 10.0
"""The least age of a pointer that is taken for lost; it doubles with every rescue of its claim."""

Call = tuple[NotificationId, int]
"""One claim of one notification: what may be sent once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A notification as it stands; `out_s` is the time since it was published."""

    id: NotificationId
    status: Status
    claim: int
    claimed_by: WorkerId | None
    due_at: datetime | None
    published_at: datetime | None
    rescues: int
    out_s: float | None

    def is_due_again_after(self, before: Row) -> bool:
        was_out = before.status == Status.QUEUED and before.due_at is None
        return was_out and self.status == Status.QUEUED and self.due_at is not None


@dataclass
class Ledger:
    """What was accepted and what was sent; judges every look at the rows."""

    accepted: set[NotificationId] = field(default_factory=set)
    sent: set[Call] = field(default_factory=set)
    workers: set[WorkerId] = field(default_factory=set)
    dead: set[WorkerId] = field(default_factory=set)
    rows: Mapping[NotificationId, Row] = field(default_factory=dict)
    rescues: Counter[Call] = field(default_factory=Counter)

    def send(self, call: Call) -> None:
        assert call not in self.sent, "one claim is sent once"
        self.sent.add(call)

    def look(
        self,
        rows: Mapping[NotificationId, Row],
        *,
        by: WorkerId | None = None,
        recorded: Mapping[Call, str] | None = None,
        rescuing: bool = False,
    ) -> None:
        """Judge the rows: `by` is who asked, `recorded` the outcomes that were just written."""
        assert set(rows) >= self.accepted, "what was accepted has a row"
        for id_, row in rows.items():
            self._judge_state(row)
            if (before := self.rows.get(id_)) is not None:
                self._judge_change(before, row)
                if row.status != before.status:
                    self._judge_record(row, recorded)
                self._judge_claimer(before, row, by)
                if rescuing and row.is_due_again_after(before):
                    self._judge_rescue(before)
        self.rows = rows

    def _judge_state(self, row: Row) -> None:
        if row.status in FINAL:
            assert row.due_at is None, "what is final is not due"
            assert row.claimed_by is None, "what is final is nobody's"
        elif row.status == Status.SENDING:
            assert row.due_at is None, "what is being sent is not due"
            assert row.claimed_by in self.workers, "somebody sends what is being sent"
        else:
            assert row.status in WAITING
            is_out = row.status == Status.QUEUED and row.published_at is not None
            assert row.due_at is not None or is_out, "the relay or the rescuer finds it"
            assert row.claimed_by is None, "what waits is nobody's"

    def _judge_change(self, before: Row, row: Row) -> None:
        assert row.claim - before.claim in (0, 1), "a claim grows by one"
        if row.claim > before.claim:
            assert (before.status, row.status) == (Status.QUEUED, Status.SENDING)
        if row.status != before.status:
            assert is_legal(Status(before.status), Status(row.status)), (before, row)

    def _judge_record(self, row: Row, recorded: Mapping[Call, str] | None) -> None:
        """A result speaks for its own claim. What amends an end is an acceptance: `is_legal`."""
        call = (row.id, row.claim)
        assert recorded is None or call in recorded, "the result of another claim"
        if row.status == Status.SENT:
            assert recorded is not None
            assert recorded[call] == Accepted.name

    def _judge_claimer(self, before: Row, row: Row, by: WorkerId | None) -> None:
        """What a living worker sends is moved on by itself alone."""
        if before.status == Status.SENDING and row.status != before.status:
            assert before.claimed_by == by or before.claimed_by in self.dead

    def _judge_rescue(self, before: Row) -> None:
        call = (before.id, before.claim)
        assert before.out_s is not None
        assert before.out_s > RESCUED_AFTER_S * 2 ** self.rescues[call]
        self.rescues[call] += 1
