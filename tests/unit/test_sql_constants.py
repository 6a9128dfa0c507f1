"""A number that a statement must share with Python is the same in both.

Most such numbers are parameters. Where Postgres would make a worse plan for a parameter, the
statement keeps a literal, and a test here compares it with the Python constant.
"""

from __future__ import annotations

import re

import pytest

from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import MAX_RECOVERED_ROWS
from notifier.recovery.rescuer import OVERDUE_S
from notifier.scheduling.gates.prober import MAX_PROBE_WAIT_S


def code_of(name: str) -> str:
    return re.sub(r"--.*", "", statement(name))


@pytest.mark.parametrize(
    ("name", "count"), [("rescue", 1), ("rescue_from", 2), ("claimed_by_dead", 2)]
)
def test_a_recovery_statement_is_limited_to_the_rows_that_python_expects(
    name: str, count: int
) -> None:
    limits = [int(limit) for limit in re.findall(r"LIMIT (\d+)", code_of(name)) if limit != "1"]
    assert limits == [MAX_RECOVERED_ROWS] * count


def test_a_row_is_first_rescued_when_the_rescuer_takes_its_message_for_lost() -> None:
    waits = re.findall(r"interval '(\d+) seconds' \* \(2 \^", code_of("rescue"))
    assert waits == [f"{OVERDUE_S:g}"]


def test_the_breaker_statements_agree_on_the_waits_between_probes() -> None:
    first_waits = {
        *re.findall(r"interval '(\d+) s'", code_of("breaker_open")),
        *re.findall(r"least\(\d+, (\d+) \* power", code_of("breaker_reopen")),
    }
    longest_waits = {
        *re.findall(r"least\((\d+), \d+ \* power", code_of("breaker_reopen")),
        *re.findall(r"secs => (\d+) \+", code_of("breaker_hold")),
    }
    assert first_waits == {"5"}
    assert longest_waits == {f"{MAX_PROBE_WAIT_S:g}"}
