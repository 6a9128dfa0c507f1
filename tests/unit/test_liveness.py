"""The inequalities that the liveness protocol depends on; see notifier/domain/liveness.py."""

from __future__ import annotations

from notifier.adapters.providers.http.signing import SIGN_TIMEOUT_S
from notifier.domain.liveness import (
    BEAT_INTERVAL_S,
    BEAT_TIMEOUT_S,
    DEAD_AFTER_S,
    LEASE_FREE_AFTER_S,
    LEASE_INTERVAL_S,
    LEASE_TIMEOUT_S,
    LEASE_USABLE_S,
    MAX_BEAT_GAP_S,
    MAX_LEASE_READ_GAP_S,
    STALE_AFTER_S,
)

CLOCK_MARGIN_S = 1.0
"""Covers clocks that run at different speeds, and the delay between a check and its call."""


def test_a_process_stops_to_begin_calls_before_others_count_it_as_dead() -> None:
    assert STALE_AFTER_S + CLOCK_MARGIN_S < DEAD_AFTER_S


def test_a_send_is_signed_before_the_others_may_count_its_worker_as_dead() -> None:
    assert STALE_AFTER_S + SIGN_TIMEOUT_S < DEAD_AFTER_S


def test_a_heartbeat_that_times_out_once_stops_no_calls() -> None:
    assert BEAT_INTERVAL_S + BEAT_TIMEOUT_S < STALE_AFTER_S


def test_the_span_until_death_holds_several_heartbeats_of_the_observer() -> None:
    assert BEAT_INTERVAL_S < MAX_BEAT_GAP_S
    assert 2 * MAX_BEAT_GAP_S < DEAD_AFTER_S


def test_a_process_stops_to_publish_before_others_take_its_lease_over() -> None:
    assert LEASE_USABLE_S < LEASE_FREE_AFTER_S


def test_a_renewal_that_times_out_once_stops_no_publishing() -> None:
    assert LEASE_INTERVAL_S + LEASE_TIMEOUT_S < LEASE_USABLE_S


def test_a_read_of_the_leases_that_is_slow_once_does_not_restart_the_span() -> None:
    assert LEASE_INTERVAL_S + LEASE_TIMEOUT_S <= MAX_LEASE_READ_GAP_S
    assert MAX_LEASE_READ_GAP_S < LEASE_FREE_AFTER_S


def test_a_lease_is_taken_over_before_its_holder_counts_as_dead() -> None:
    assert LEASE_FREE_AFTER_S < DEAD_AFTER_S
