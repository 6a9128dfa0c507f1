"""The inequalities that the liveness protocol depends on; see notifier/domain/liveness.py."""

from __future__ import annotations

from notifier.domain.liveness import (
    BEAT_INTERVAL_S,
    BEAT_TIMEOUT_S,
    DEAD_AFTER_S,
    MAX_BEAT_GAP_S,
    STALE_AFTER_S,
    UNPUBLISHED_AFTER_BEAT_S,
    UNPUBLISHED_BEFORE_BEAT_S,
)
from notifier.settings.tree import BrokerSettings

CLOCK_MARGIN_S = 1.0
"""Covers clocks that run at different speeds, and the delay between a check and its call."""


def test_a_process_stops_to_begin_calls_before_others_count_it_as_dead() -> None:
    assert STALE_AFTER_S + CLOCK_MARGIN_S < DEAD_AFTER_S


def test_a_heartbeat_that_times_out_once_stops_no_calls() -> None:
    assert BEAT_INTERVAL_S + BEAT_TIMEOUT_S < STALE_AFTER_S


def test_the_span_until_death_holds_several_heartbeats_of_the_observer() -> None:
    assert BEAT_INTERVAL_S < MAX_BEAT_GAP_S
    assert 2 * MAX_BEAT_GAP_S < DEAD_AFTER_S


def test_what_a_process_takes_after_it_counts_as_dead_is_not_published_again() -> None:
    assert UNPUBLISHED_AFTER_BEAT_S < DEAD_AFTER_S


def test_a_publish_that_times_out_ends_within_the_span_before_the_last_heartbeat() -> None:
    assert BrokerSettings().publish_timeout_s + BEAT_INTERVAL_S < UNPUBLISHED_BEFORE_BEAT_S
