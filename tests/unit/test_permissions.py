"""What pauses and breakers allow a queue to do, and how they age."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from math import inf

import pytest

from notifier.domain.controls import (
    Breaker,
    BreakerState,
    Controls,
    Pause,
    ScopeKind,
    SendPermission,
)
from notifier.domain.notification import QueueKey
from notifier.scheduling.gates.permissions import (
    aged,
    next_expiry_s,
    permission_of,
    stops_of,
)
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH, a_breaker, a_pause

OPEN, HALF_OPEN, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED


def permission(
    *controls: Pause | Breaker,
    queue: QueueKey = EMAIL_HIGH,
    providers: Sequence[str] = ("smtp",),
    probed_from: QueueKey | None = None,
) -> SendPermission:
    return permission_of(
        Controls(
            pauses=tuple(each for each in controls if isinstance(each, Pause)),
            breakers=tuple(each for each in controls if isinstance(each, Breaker)),
        ),
        queue,
        providers,
        {"smtp": probed_from} if probed_from else {},
    )


@pytest.mark.parametrize(
    ("pause", "covers_high", "covers_low", "covers_sms"),
    [
        (a_pause(ScopeKind.QUEUE, "email.high"), True, False, False),
        (a_pause(ScopeKind.CHANNEL, "email"), True, True, False),
        (a_pause(ScopeKind.CHANNEL, "sms"), False, False, True),
        (a_pause(ScopeKind.PROVIDER, "smtp"), True, True, True),
        (a_pause(ScopeKind.PROVIDER, "email"), False, False, False),
    ],
)
def test_a_pause_covers_its_scope_and_nothing_else(
    pause: Pause, covers_high: bool, covers_low: bool, covers_sms: bool
) -> None:
    paused = [
        permission(pause, queue=queue) is SendPermission.PAUSED
        for queue in (EMAIL_HIGH, EMAIL_LOW, SMS_HIGH)
    ]
    assert paused == [covers_high, covers_low, covers_sms]


def test_a_queue_may_send_while_one_of_its_providers_may() -> None:
    both = ("smtp", "http")
    smtp_paused = a_pause(ScopeKind.PROVIDER, "smtp")
    http_paused = a_pause(ScopeKind.PROVIDER, "http")
    assert permission(smtp_paused, providers=both) is SendPermission.ALLOWED
    assert permission(smtp_paused, http_paused, providers=both) is SendPermission.PAUSED
    assert permission(a_breaker("smtp"), providers=both) is SendPermission.ALLOWED
    assert (
        permission(a_breaker("smtp"), a_breaker("http"), providers=both)
        is SendPermission.BREAKER_OPEN
    )
    assert permission(smtp_paused, a_breaker("http"), providers=both) is SendPermission.BREAKER_OPEN


def test_a_queue_without_providers_may_send_unless_it_is_paused_itself() -> None:
    assert permission(providers=()) is SendPermission.ALLOWED
    assert permission(a_pause(ScopeKind.CHANNEL, "email"), providers=()) is SendPermission.PAUSED


@pytest.mark.parametrize(
    ("breaker", "probed_from", "expected"),
    [
        (a_breaker(state=CLOSED), None, SendPermission.ALLOWED),
        (a_breaker(state=OPEN), EMAIL_HIGH, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN), EMAIL_HIGH, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN, is_mine=True), None, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN, is_mine=True), EMAIL_LOW, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN, is_mine=True), EMAIL_HIGH, SendPermission.PROBE),
        (
            a_breaker(state=HALF_OPEN, is_mine=True, probe_in_s=0),
            EMAIL_HIGH,
            SendPermission.BREAKER_OPEN,
        ),
    ],
)
def test_only_the_holder_of_the_probe_sends_it_and_only_from_one_queue(
    breaker: Breaker, probed_from: QueueKey | None, expected: SendPermission
) -> None:
    assert permission(breaker, probed_from=probed_from) is expected


def test_a_pause_takes_precedence_over_an_open_breaker() -> None:
    assert permission(a_breaker(), a_pause(ScopeKind.QUEUE, "email.high")) is SendPermission.PAUSED


def test_aging_moves_all_spans_and_removes_expired_pauses() -> None:
    short, endless = a_pause(ScopeKind.CHANNEL, "email", 2.0), a_pause(ScopeKind.CHANNEL, "sms")
    controls = Controls(pauses=(short, endless), breakers=(a_breaker(probe_in_s=5.0),))
    later = aged(controls, 1.5)
    assert [(pause.age_s, pause.expires_in_s) for pause in later.pauses] == [
        (2.5, 0.5),
        (2.5, None),
    ]
    assert (later.breakers[0].age_s, later.breakers[0].probe_in_s) == (2.5, 3.5)
    assert [pause.scope.name for pause in aged(controls, 2.0).pauses] == ["sms"]


def test_the_next_expiry_is_that_of_a_pause_or_of_our_hold_on_a_probe() -> None:
    pause = a_pause(ScopeKind.CHANNEL, "email", 9.0)
    held = a_breaker(state=HALF_OPEN, is_mine=True, probe_in_s=3.0)
    assert next_expiry_s(Controls()) == inf
    assert next_expiry_s(Controls(pauses=(pause,), breakers=(a_breaker(),))) == 9.0
    assert next_expiry_s(Controls(pauses=(pause,), breakers=(held,))) == 3.0


STOPPING: tuple[Pause | Breaker, ...] = (
    a_pause(ScopeKind.QUEUE, "email.high"),
    a_pause(ScopeKind.QUEUE, "email.low"),
    a_pause(ScopeKind.CHANNEL, "email"),
    a_pause(ScopeKind.PROVIDER, "smtp"),
    a_pause(ScopeKind.PROVIDER, "ses"),
    a_pause(ScopeKind.TENANT, "email"),
    a_breaker("smtp"),
    a_breaker("ses", HALF_OPEN),
    a_breaker("twilio"),
)


@pytest.mark.parametrize("providers", [("smtp",), ("smtp", "ses"), ()])
def test_a_queue_is_stopped_exactly_while_something_is_named_that_stops_it(
    providers: Sequence[str],
) -> None:
    subsets = chain.from_iterable(combinations(STOPPING, size) for size in range(len(STOPPING) + 1))
    for some in subsets:
        controls = Controls(
            pauses=tuple(each for each in some if isinstance(each, Pause)),
            breakers=tuple(each for each in some if isinstance(each, Breaker)),
        )
        allowed = permission_of(controls, EMAIL_HIGH, providers, {})
        stops = stops_of(controls, EMAIL_HIGH, providers)
        is_stopped = bool(stops.pauses or stops.breakers)
        assert (allowed is SendPermission.ALLOWED) is not is_stopped, some
        if allowed is SendPermission.PAUSED:
            assert stops.pauses
        if allowed is SendPermission.BREAKER_OPEN:
            assert stops.breakers


def test_what_stops_one_of_two_providers_is_not_named() -> None:
    pause = a_pause(ScopeKind.PROVIDER, "smtp")
    controls = Controls(pauses=(pause,), breakers=(a_breaker("smtp", CLOSED),))
    assert stops_of(controls, EMAIL_HIGH, ("smtp", "ses")) == ([], ())
    assert stops_of(controls, EMAIL_HIGH, ("smtp",)) == ([pause], [])
