"""For how long a row is parked: by a pause as long as that has lasted; by night to its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest

from notifier.domain.controls import Controls, Pause, Scope, ScopeKind
from notifier.domain.holds import MAX_PARKED_S, MIN_PARKED_S, Holds, Parking, time_zone_of
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
    tag: str | None = None,
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
        tag=tag,
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
    while now < until and (parking := present.parking(row(), now, draw)) is not None:
        now += timedelta(seconds=parking.after_s)
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
    assert holds(pause(for_s=600)).parking(row(), NOON + timedelta(seconds=600), 0.5) is None


def test_no_row_is_parked_for_less_than_a_minute() -> None:
    short = holds(pause(for_s=2)).parking(row(), NOON + timedelta(seconds=1), 0.0)
    assert short == Parking(MIN_PARKED_S, Scope(ScopeKind.TENANT, "shop"))
    almost_morning = datetime(2026, 6, 10, 7, 59, 59, tzinfo=UTC)
    quiet = holds(quiet_hours=NIGHT).parking(row(), almost_morning, 0.0)
    assert quiet == Parking(MIN_PARKED_S, None)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_rows_parked_for_long_become_due_over_a_minute(draw: float) -> None:
    evening = datetime(2026, 6, 10, 22, tzinfo=UTC)
    parking = holds(quiet_hours=NIGHT).parking(row(), evening, draw)
    assert parking == Parking(10 * 3600 + 60 * draw, None)


def test_of_a_pause_and_quiet_hours_the_longer_counts() -> None:
    evening = datetime(2026, 6, 10, 22, tzinfo=UTC)
    both = holds(pause(since=evening), quiet_hours=NIGHT)
    assert both.parking(row(), evening, 0.0) == Parking(10 * 3600, None)
    before_eight = datetime(2026, 6, 11, 7, 58, tzinfo=UTC)
    parking = both.parking(row(), before_eight, 0.0)
    assert parking == Parking(MAX_PARKED_S, Scope(ScopeKind.TENANT, "shop"))


def test_other_tenants_are_not_concerned() -> None:
    night = datetime(2026, 6, 10, 23, tzinfo=UTC)
    present = holds(pause(since=night), quiet_hours=NIGHT)
    assert present.parking(row(DEFAULT_TENANT), night, 0.0) is None
    assert holds(pause("default")).parking(row(), NOON, 0.0) is None
    assert holds(pause("default")).parking(row(DEFAULT_TENANT), NOON, 0.0) is not None


def test_quiet_hours_do_not_put_off_what_is_urgent_but_a_pause_does() -> None:
    night = datetime(2026, 6, 10, 23, tzinfo=UTC)
    assert holds(quiet_hours=NIGHT).parking(row(queue=EMAIL_HIGH), night, 0.0) is None
    assert holds(pause(since=night)).parking(row(queue=EMAIL_HIGH), night, 0.0) is not None


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
    for tenant in (SHOP, DEFAULT_TENANT):
        assert present.parking(row(tenant, tag="sale"), NOON, 0.0) == Parking(60.0, scope)
    assert present.parking(row(tag="sales"), NOON, 0.0) is None
    assert present.parking(row(), NOON, 0.0) is None


def test_quiet_hours_do_not_concern_calls_of_webhooks() -> None:
    present = holds(quiet_hours=QuietHours(start=time(0), end=time(23), time_zone="UTC"))
    assert present.parking(row(), NOON, 0.0) is not None
    assert present.parking(row(queue=WEBHOOK_QUEUE), NOON, 0.0) is None
