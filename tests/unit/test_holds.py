"""For how long a row is parked: by a pause as long as that has lasted; by night to its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest

from notifier.domain.controls import Controls, Pause, Scope, ScopeKind
from notifier.domain.holds import (
    MAX_PARKED_S,
    MIN_PARKED_S,
    Holds,
    PauseParking,
    time_zone_of,
)
from notifier.domain.notification import Claimed, QueueKey
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.webhooks import WEBHOOK_QUEUE
from tests.builders import EMAIL_HIGH, EMAIL_LOW, new_id

NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)
SHOP = TenantId("shop")
NIGHT = QuietHours(start=time(21), end=time(8), time_zone="UTC")


def row(
    tenant: TenantId = SHOP,
    *,
    queue: QueueKey = EMAIL_LOW,
    content: bytes = b"{}",
) -> Claimed:
    return Claimed(
        id=new_id(),
        claim=1,
        queue=queue,
        recipient="ok@example.com",
        content=content,
        tries=0,
        max_tries=None,
        waited_s=0.0,
        tenant=tenant,
    )


def pause(name: str = "shop", *, for_s: float | None = None, since: datetime = NOON) -> Pause:
    return Pause(
        scope=Scope(ScopeKind.TENANT, name),
        note="",
        age_s=0.0,
        paused_at=since,
        expires_at=None if for_s is None else since + timedelta(seconds=for_s),
        expires_in_s=for_s,
    )


def holds(*pauses: Pause, quiet_hours: QuietHours | None = None) -> Holds:
    quiet = {} if quiet_hours is None else {SHOP: quiet_hours}
    return Holds.of(Controls(pauses=pauses, quiet_hours=quiet))


def looks(present: Holds, start: datetime, *, until: datetime, draw: float = 0.0) -> list[float]:
    """When a parked row becomes due, in seconds after `start`, until it may be sent."""
    now, at = start, list[float]()
    while now < until and (parkings := present.pause_parkings(now, draw)):
        now += timedelta(seconds=parkings[0].after_s)
        at.append((now - start).total_seconds())
    return at


def test_without_pauses_and_quiet_hours_there_are_no_holds() -> None:
    assert not Holds()
    assert not Holds.of(
        Controls(pauses=(Pause(
            scope=Scope(ScopeKind.CHANNEL, "email"), note="", age_s=0, paused_at=NOON,
            expires_at=None, expires_in_s=None,
        ),))
    )  # fmt: skip
    assert holds(pause())
    assert holds(quiet_hours=NIGHT)


def test_the_spans_of_a_pause_double_up_to_an_hour() -> None:
    at = looks(holds(pause()), NOON, until=NOON + timedelta(hours=24))
    assert at[:6] == [60, 120, 240, 480, 960, 1920]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert max(gaps) == MAX_PARKED_S
    assert len(at) < 32, "a day costs a row few claims"


def test_a_pause_with_an_end_parks_to_the_end_at_the_latest() -> None:
    at = looks(holds(pause(for_s=600)), NOON, until=NOON + timedelta(hours=24))
    assert at == [60, 120, 240, 480, 600]
    assert holds(pause(for_s=600)).pause_parkings(NOON + timedelta(seconds=600), 0.5) == []


def test_no_row_is_parked_for_less_than_a_minute() -> None:
    short = holds(pause(for_s=2)).pause_parkings(NOON + timedelta(seconds=1), 0.0)
    assert short == [PauseParking(Scope(ScopeKind.TENANT, "shop"), MIN_PARKED_S)]
    almost_morning = datetime(2026, 6, 10, 7, 59, 59, tzinfo=UTC)
    assert holds(quiet_hours=NIGHT).quiet_s(row(), almost_morning, 0.0) == MIN_PARKED_S


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_rows_parked_for_long_become_due_over_a_minute(draw: float) -> None:
    evening = datetime(2026, 6, 10, 22, tzinfo=UTC)
    present = holds(pause(since=evening - timedelta(hours=1)), quiet_hours=NIGHT)
    assert present.quiet_s(row(), evening, draw) == 10 * 3600 + 60 * draw
    [parking] = present.pause_parkings(evening, draw)
    assert parking.after_s == 3600 + 60 * draw


def test_other_tenants_are_not_concerned() -> None:
    night = datetime(2026, 6, 10, 23, tzinfo=UTC)
    present = holds(pause(since=night), quiet_hours=NIGHT)
    assert present.quiet_s(row(), night, 0.0) == 9 * 3600
    assert present.quiet_s(row(DEFAULT_TENANT), night, 0.0) is None
    assert present.pauses_of(DEFAULT_TENANT, None) == []
    assert present.pauses_of(SHOP, None) == [pause(since=night)]


def test_quiet_hours_do_not_put_off_what_is_urgent() -> None:
    night = datetime(2026, 6, 10, 23, tzinfo=UTC)
    assert holds(quiet_hours=NIGHT).quiet_s(row(), night, 0.0) is not None
    assert holds(quiet_hours=NIGHT).quiet_s(row(queue=EMAIL_HIGH), night, 0.0) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[1]", b'{"time_zone":7}', b'"time_zone"', b'{"time_zone":null}', b"{" * 9000],
)
def test_a_content_without_a_readable_time_zone_has_none(content: bytes) -> None:
    assert time_zone_of(content + b' "time_zone"') is None
    assert time_zone_of(content) is None


def test_a_time_zone_in_the_text_of_a_message_is_none() -> None:
    assert time_zone_of(b'{"body":"\\"time_zone\\": \\"UTC\\""}') is None
    assert time_zone_of(b'{"body":"b","data":{"time_zone":"UTC"}}') is None
    assert time_zone_of(b'{"body":"b","time_zone":"Asia/Tokyo"}') == "Asia/Tokyo"


def test_a_name_that_is_no_tenants_holds_nothing_and_raises_nothing() -> None:
    assert not holds(pause("Not a name"))


def test_a_pause_of_a_tag_holds_what_has_it_of_every_tenant() -> None:
    scope = Scope(ScopeKind.TAG, "sale")
    present = holds(replace(pause(), scope=scope))
    assert present
    assert present.scopes == {scope}
    assert present.pause_parkings(NOON, 0.0) == [PauseParking(scope, 60.0)]
    for tenant in (SHOP, DEFAULT_TENANT):
        assert [each.scope for each in present.pauses_of(tenant, "sale")] == [scope]
    assert present.pauses_of(SHOP, "sales") == []
    assert present.pauses_of(SHOP, None) == []


def test_quiet_hours_do_not_concern_calls_of_webhooks() -> None:
    present = holds(quiet_hours=QuietHours(start=time(0), end=time(23), time_zone="UTC"))
    assert present.quiet_s(row(), NOON, 0.0) is not None
    assert present.quiet_s(row(queue=WEBHOOK_QUEUE), NOON, 0.0) is None
