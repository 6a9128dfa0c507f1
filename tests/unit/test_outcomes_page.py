"""docs/outcomes.md is what the code decides."""

from __future__ import annotations

from harness.outcomes_page import COMMAND, PAGE, REASONS, page
from notifier.domain.breaker import Opening


def test_the_page_of_outcomes_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), f"write it again: {COMMAND}"


def test_every_reason_of_a_breaker_is_explained() -> None:
    assert set(REASONS) | {Opening.PROBE} == set(Opening)
