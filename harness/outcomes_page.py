"""Writes docs/outcomes.md: what providers say, which outcome that is, and what follows.

    python -m harness.outcomes_page

The page is made from the tables and decisions of the code, and a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from notifier.adapters.providers.http.answers import STATUSES
from notifier.adapters.providers.http.failures import FAILURES, FailureRow
from notifier.adapters.providers.smtp.replies import ANY, ROWS, Step
from notifier.adapters.providers.smtp.session import LOST_BYTES
from notifier.adapters.providers.verdict import VerdictName, outcome
from notifier.domain.breaker import NEEDS_A_PERSON, Opening, closes, is_failure
from notifier.domain.outcome import (
    OUTCOMES,
    Accepted,
    Ambiguous,
    Deferred,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import (
    AmbiguityRule,
    Decision,
    Fail,
    OnAmbiguous,
    Retry,
    RetryPolicy,
    Settle,
    Spent,
    decide,
)
from notifier.scheduling.gates.prober import MAX_PROBE_WAIT_S, base_wait_s

PAGE: Final = Path(__file__).parents[1] / "docs/outcomes.md"
COMMAND: Final = "python -m harness.outcomes_page"
POLICY: Final = RetryPolicy(
    base=timedelta(seconds=1), factor=2, cap=timedelta(minutes=1), tries=1000
)
OFTEN: Final = Spent(tries=0, deferrals=100, unspent=100)

CASES: Final[Sequence[tuple[str, Outcome, str, str]]] = (
    ("accepted", Accepted(), "none", "the provider accepted the message"),
    ("refused", Refused(code=""), "none", "it will never take this message"),
    (
        "refused, not called",
        Refused(code="", is_local=True),
        "none",
        "it cannot be sent: its template, address or content; the provider was not asked",
    ),
    (
        "deferred",
        Deferred(code=""),
        "none",
        "this recipient or message must wait: mailbox full, greylisting",
    ),
    ("throttled", Throttled(code=""), "x 0.7", "too many requests, for all that we send"),
    (
        "misconfigured",
        Misconfigured(code=""),
        "none",
        "it rejects what our settings say: sender, URL, account",
    ),
    (
        "misconfigured (`credentials`)",
        Misconfigured(code="", is_credentials=True),
        "none",
        "it rejects our login",
    ),
    ("unavailable", Unavailable(code=""), "none", "the provider has a fault"),
    (
        "unavailable, not called",
        Unavailable(code="", is_local=True),
        "none",
        "no connection was free, or the channel has no provider",
    ),
    ("ambiguous", Ambiguous(code=""), "none", "cut after the message was sent: perhaps sent"),
    (
        "ambiguous, no answer",
        Ambiguous(code="timeout"),
        "none",
        "timed out after the message was sent: perhaps sent",
    ),
)
"""Name, outcome, what it does to the provider's rate, meaning."""

REASONS: Final[dict[Opening, str]] = {
    Opening.ERRORS: "half of at least 20 calls in 10 s failed",
    Opening.CONSECUTIVE: "5 failures in a row over at least 3 s",
    Opening.CREDENTIALS: "3 in a row over at least 1 s reject our login, and nothing is accepted",
    Opening.CONFIGURATION: "the same with our other settings",
    Opening.REFUSALS: "`refusals_in_a_row` (20) recipients refused, nothing accepted between",
    Opening.THROTTLED: "`Retry-After`, or 5 throttled and nothing accepted for 1 s",
    Opening.UNANSWERED: "no worker had an answer for `stop_unanswered_s` (10 s)",
}


INTRODUCTION: Final = (
    "What a provider said becomes one of these outcomes, and the outcome decides what follows. "
    "[Design](design.md#outcomes-and-retries) has the reasons, [configuration](configuration.md) "
    "the tables of your own that come first."
)
LEGEND: Final = (
    "A wait is jittered by up to half, is at least what the provider asks for (`Retry-After`), and "
    "ends with the notification's `ttl_s`. *By the policy*: the delays and tries of the priority. "
    "Evidence: whether the call speaks for or against the provider when the breaker is decided."
)
SMTP_LEGEND: Final = (
    "First match wins. The reply is its code, with the enhanced code if a line of the text begins "
    "with one; the words are searched in the text, ignoring case. Both are regular expressions."
)


def page() -> str:
    """The page as text."""
    parts = (
        "# Outcomes",
        f"<!-- Written by `{COMMAND}` from the code; a test compares the two. -->",
        INTRODUCTION,
        "## What follows",
        _outcomes(),
        LEGEND,
        "## When a breaker opens",
        _reasons(),
        "Rows of a provider with an open breaker wait and spend no try.",
        "## SMTP replies",
        SMTP_LEGEND,
        _smtp(),
        "Without a reply, what was out decides. A byte is out when the kernel took it.",
        _table(("was out", "what happened", "outcome"), LOST_BYTES),
        "## HTTP responses",
        "By status, first match wins.",
        _http(),
        "## HTTP requests without a response",
        _failures(),
    )
    return "\n\n".join(parts) + "\n"


def _outcomes() -> str:
    missing = {each.name for each in OUTCOMES} - {value.name for _, value, _, _ in CASES}
    assert not missing, f"outcomes without a row: {missing}"
    rows = [
        (
            name,
            meaning,
            "1" if _decided(value).spends else "0",
            _next(value),
            rate,
            {None: "none", False: "works", True: "fails"}[is_failure(value)],
        )
        for name, value, rate, meaning in CASES
    ]
    header = ("outcome", "meaning", "tries", "then", "rate", "evidence")
    return _table(header, rows)


def _decided(value: Outcome, spent: Spent = Spent()) -> Decision:  # noqa: B008 immutable
    return decide(
        value, spent=spent, max_tries=None, policy=POLICY, ambiguity=AmbiguityRule(), draw=0.0
    )


def _next(value: Outcome) -> str:
    first = _decided(value)
    match first:
        case Settle():
            return "sent"
        case Fail(reason=reason):
            return f"failed: `{reason}`"
        case Retry(spends=False, after=after):
            longest = _decided(value, OFTEN)
            assert isinstance(longest, Retry)
            return f"again after {_span(after)}, doubling to {_span(longest.after)}"
        case Retry() if isinstance(value, Ambiguous):
            held = decide(
                value,
                spent=Spent(),
                max_tries=None,
                policy=POLICY,
                ambiguity=AmbiguityRule(on_ambiguous=OnAmbiguous.HOLD),
                draw=0.0,
            )
            assert isinstance(held, Fail)
            tries = AmbiguityRule().tries
            return (
                f"again by the policy, `ambiguous_tries` ({tries}) times, then failed: "
                f"`{held.reason}`; under `hold` at once"
            )
        case Retry():
            return "again by the policy, then failed: `exhausted`"


def _reasons() -> str:
    tests: Sequence[tuple[str, Outcome]] = tuple((value.name, value) for _, value, _, _ in CASES)
    rows = [
        (
            f"`{reason}`",
            when,
            f"{base_wait_s(reason):g} s, doubling to {MAX_PROBE_WAIT_S:g} s",
            ", ".join(dict.fromkeys(name for name, value in tests if closes(reason, value))),
            "misconfigured" if reason in NEEDS_A_PERSON else "",
        )
        for reason, when in REASONS.items()
    ]
    return _table(("reason", "opens when", "probes after", "a probe closes it if", "alert"), rows)


def _smtp() -> str:
    rows = [
        (
            "all" if row.steps == ANY else ", ".join(step for step in Step if step in row.steps),
            _code(row.code),
            _code(row.words),
            _named(row.verdict),
            row.note,
        )
        for row in ROWS
    ]
    return _table(("after", "reply", "words", "outcome", "note"), rows)


def _http() -> str:
    rows = [
        (
            str(row.statuses.start)
            if len(row.statuses) == 1
            else f"{row.statuses.start} to {row.statuses.stop - 1}",
            _named(row.verdict),
            row.note,
        )
        for row in STATUSES
    ]
    return _table(("status", "outcome", "note"), rows)


def _failures() -> str:
    rows = [
        (row.what, _steps(row), _named(row.verdict), f"`{row.code}`", row.note) for row in FAILURES
    ]
    return _table(("what happened", "step", "outcome", "code", "note"), rows)


def _steps(row: FailureRow) -> str:
    return ", ".join(step.name.lower() for step in row.steps)


def _named(verdict: VerdictName) -> str:
    name = outcome(verdict, "code").name
    return name if name == verdict else f"{name} (`{verdict}`)"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    minute_s = 60
    return f"{seconds:g} s" if seconds < minute_s else f"{seconds / minute_s:g} min"


def _code(pattern: str) -> str:
    return f"`{pattern}`".replace("|", r"\|") if pattern else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
