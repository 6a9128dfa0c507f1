from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.providers.smtp.replies import (
    OPENING,
    SIGNING_IN,
    full_code,
    reply_outcome,
)
from notifier.adapters.providers.verdict import VerdictName, outcome, printable
from notifier.domain.outcome import (
    Ambiguous,
    Deferred,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)

DENIED = Misconfigured(code="", detail="no", is_credentials=True)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (450, "mailbox busy", Throttled(code="450", detail="mailbox busy")),
        (452, "4.3.1 full", Throttled(code="452 4.3.1", detail="4.3.1 full")),
        (451, "4.7.1 greylisted", Throttled(code="451 4.7.1", detail="4.7.1 greylisted")),
        (421, "4.7.28 rate", Throttled(code="421 4.7.28", detail="4.7.28 rate")),
        (421, "4.3.2 closing", Unavailable(code="421 4.3.2", detail="4.3.2 closing")),
        (451, "4.3.0 later", Unavailable(code="451 4.3.0", detail="4.3.0 later")),
        (550, "5.1.1 who?", Refused(code="550 5.1.1", detail="5.1.1 who?")),
        (550, "5.1.6 moved", Refused(code="550 5.1.6", detail="5.1.6 moved")),
        (556, "5.1.10 null MX", Refused(code="556 5.1.10", detail="5.1.10 null MX")),
        (550, "5.2.1 disabled", Refused(code="550 5.2.1", detail="5.2.1 disabled")),
        (550, "5.1.11 odd", Refused(code="550 5.1.11", detail="5.1.11 odd")),
        (550, "5.7.1 spam", Refused(code="550 5.7.1", detail="5.7.1 spam")),
        (554, "no", Refused(code="554", detail="no")),
        (
            530,
            "5.7.0 sign in",
            Misconfigured(code="530 5.7.0", detail="5.7.0 sign in", is_credentials=True),
        ),
        (535, "wrong", Misconfigured(code="535", detail="wrong", is_credentials=True)),
        (-1, "HTTP/1.1 400", Unavailable(code="protocol", detail="HTTP/1.1 400")),
        (999, "?", Unavailable(code="999", detail="?")),
    ],
)
def test_each_reply_has_the_outcome_of_the_table(code: int, text: str, expected: Outcome) -> None:
    assert reply_outcome(code, text) == expected


def test_an_unreadable_reply_to_the_final_dot_is_ambiguous() -> None:
    assert reply_outcome(354, "more?", garbage="ambiguous") == Ambiguous(code="354", detail="more?")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (535, DENIED),
        (534, DENIED),
        (500, DENIED),
        (454, Unavailable(code="454", detail="no")),
        (421, Unavailable(code="421", detail="no")),
    ],
)
def test_a_failed_login_spends_no_try_unless_the_failure_is_transient(
    code: int, expected: Outcome
) -> None:
    assert msgspec.structs.replace(expected, code=str(code)) == reply_outcome(
        code, "no", SIGNING_IN
    )


def test_a_refusal_before_the_message_does_not_refuse_the_recipient() -> None:
    assert isinstance(reply_outcome(554, "blocked", OPENING), Misconfigured)
    assert reply_outcome(421, "4.3.2 busy", OPENING) == Unavailable(
        code="421 4.3.2", detail="4.3.2 busy"
    )


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (550, "5.1.1 a", "550 5.1.1"),
        (550, "4.1.1 a", "550"),
        (550, "5.1.1", "550 5.1.1"),
        (550, "5.1.1a", "550"),
        (250, "ok 2.0.0", "250"),
    ],
)
def test_an_enhanced_code_counts_only_at_the_start_and_in_the_same_class(
    code: int, text: str, expected: str
) -> None:
    assert full_code(code, text) == expected


@given(st.integers(400, 499), st.text(max_size=50))
def test_a_transient_refusal_is_never_final(code: int, text: str) -> None:
    assert isinstance(reply_outcome(code, text), Deferred | Throttled | Unavailable)


@given(st.integers(500, 599), st.text(max_size=50))
def test_a_permanent_refusal_is_final_unless_it_concerns_our_credentials(
    code: int, text: str
) -> None:
    result = reply_outcome(code, text)
    assert isinstance(result, Refused | Misconfigured)


@given(st.text(st.characters(), max_size=900), st.integers(1, 300))
def test_printable_text_can_always_be_stored(text: str, limit: int) -> None:
    safe = printable(text, limit)
    assert len(safe) <= limit
    assert "\0" not in safe
    assert "\n" not in safe
    safe.encode()


@pytest.mark.parametrize("verdict", get_args(VerdictName))
def test_every_verdict_is_an_outcome(verdict: VerdictName) -> None:
    assert outcome(verdict, "1").code == "1"
