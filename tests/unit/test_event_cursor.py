"""The cursor of events: its text, and what a bounded one has seen."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.credentials import Mode
from notifier.domain.event_cursor import (
    MAX_CURSOR_BYTES,
    EventCursor,
    bounded,
    decode_cursor,
    encode_cursor,
)
from notifier.domain.events import Event, EventFilter, event_id
from notifier.domain.tenants import TenantId
from tests.builders import new_id

AT = datetime(2026, 12, 1, 4, 5, 6, 789000, tzinfo=UTC)
DELTAS = st.lists(st.integers(1, 2**21), max_size=900)


def cursor_of(deltas: list[int], beyond_by: int = 1, base: int = 0) -> EventCursor:
    running = tuple(base + number for number in accumulate(deltas))
    return EventCursor(7, AT, (running[-1] if running else base) + beyond_by, running)


@given(
    deltas=st.lists(st.integers(1, 2**40), max_size=50),
    partial=st.integers(0, 2**60),
    count=st.integers(0, 10_000),
    epoch=st.integers(0, 2**64 - 1),
)
def test_a_cursor_is_the_same_after_its_text(
    deltas: list[int], partial: int, count: int, epoch: int
) -> None:
    before = cursor_of(deltas)
    cursor = EventCursor(epoch, AT, before.beyond, before.running, partial, count)
    assert decode_cursor(encode_cursor(cursor)) == cursor


@given(text=st.one_of(st.text(max_size=80), st.from_regex(r"[A-Za-z0-9_-]{0,80}", fullmatch=True)))
def test_any_other_text_is_refused(text: str) -> None:
    try:
        cursor = decode_cursor(text)
    except ValueError:
        return
    assert decode_cursor(encode_cursor(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "A", "AQ", "A" * 3000, "AQAAAAAAAAAB____", "AQ" + "_" * 500])
def test_a_text_that_is_cut_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cursor|base64|padded"):
        decode_cursor(text)


@given(deltas=DELTAS, ended=st.sets(st.integers(0, 900)), more=DELTAS)
def test_a_bounded_cursor_is_short_and_has_seen_what_the_one_before_has(
    deltas: list[int], ended: set[int], more: list[int]
) -> None:
    before = bounded(cursor_of(deltas), EventCursor(7, AT, 0))
    left = [number for index, number in enumerate(before.running) if index not in ended]
    later = cursor_of(more, base=before.beyond)
    present = EventCursor(7, AT, later.beyond, (*left, *later.running))
    result = bounded(present, before)
    assert len(encode_cursor(result)) <= MAX_CURSOR_BYTES
    assert result.covers(before)
    assert present.covers(result)


def test_a_bounded_cursor_leaves_out_what_the_bound_cannot_hold() -> None:
    present = cursor_of([2**20] * 900)
    result = bounded(present, EventCursor(7, AT, 0))
    assert 300 < len(result.running) < 900
    assert result.beyond == present.running[len(result.running)]


def test_a_cursor_covers_another_only_if_it_has_seen_all_of_it() -> None:
    seen = EventCursor(7, AT, 10, (3, 5))
    assert seen.covers(EventCursor(7, AT, 10, (3, 5, 8)))
    assert seen.covers(EventCursor(7, AT, 4, (3,)))
    assert not seen.covers(EventCursor(7, AT, 10, (5,)))
    assert not seen.covers(EventCursor(7, AT, 11, (3, 5, 10)))
    assert [number for number in range(11) if not seen.sees(number)] == [3, 5, 10]


def test_ids_differ_by_type_notification_and_claim_and_carry_the_time() -> None:
    one, other = new_id(), new_id()
    ids = {
        event_id(type_, notification, claim, AT)
        for type_ in ("notification.sent", "notification.failed")
        for notification in (one, other)
        for claim in (1, 2)
    }
    assert len(ids) == 8
    assert {id_.version for id_ in ids} == {7}
    assert {id_.int >> 80 for id_ in ids} == {int(AT.timestamp() * 1000)}


@pytest.mark.parametrize(
    ("tenant", "mode", "seen"),
    [
        (TenantId("shop"), Mode.LIVE, [True, False, False]),
        (TenantId("shop"), Mode.TEST, [False, False, False]),
        (None, Mode.LIVE, [True, True, False]),
        (None, Mode.TEST, [False, False, True]),
    ],
)
def test_a_filter_shows_no_event_of_another_tenant_or_mode(
    tenant: TenantId | None, mode: Mode, seen: list[bool]
) -> None:
    events = [
        Event(new_id(), "suppression.created", AT, TenantId("shop"), Mode.LIVE),
        Event(new_id(), "breaker.opened", AT, None, Mode.LIVE),
        Event(new_id(), "suppression.created", AT, TenantId("bank"), Mode.TEST),
    ]
    selection = EventFilter(mode=mode, tenant=tenant)
    assert [selection.matches(event) for event in events] == seen
