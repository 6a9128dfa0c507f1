"""A number that a statement must share with Python is the same in both.

Most such numbers are parameters. Where Postgres would make a worse plan for a parameter, the
statement keeps a literal, and a test here compares it with the Python constant.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import UNCLAIMED
from notifier.delivery.class_cursor import DIRECT_DELAY_S
from notifier.delivery.templates import TEMPLATED
from notifier.domain.breaker import MAX_REST_S, Opening
from notifier.domain.controls import ScopeKind
from notifier.domain.due import DueClass
from notifier.scheduling.gates.prober import MAX_PROBE_WAIT_S

SQL = Path(__file__).parents[2] / "notifier/adapters/postgres/sql"
STATEMENTS = sorted(SQL.glob("*.sql"))


def code_of(name: str) -> str:
    return re.sub(r"--.*", "", statement(name))


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: path.stem)
def test_a_statement_has_no_id_but_the_one_of_unclaimed_rows(path: Path) -> None:
    ids = re.findall(r"'([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})'", code_of(path.stem))
    assert set(ids) <= {str(UNCLAIMED)}


@pytest.mark.parametrize(
    ("name", "due_class"),
    [
        ("give_back", DueClass.BACK),
        ("settle_orphans", DueClass.BACK),
        ("record", DueClass.RETRY),
        ("read_notifications", DueClass.RETRY),
        ("list_waiting", DueClass.RETRY),
    ],
)
def test_a_statement_means_the_class_that_python_means(name: str, due_class: DueClass) -> None:
    classes = set(re.findall(r"\bclass = (\d)", code_of(name)))
    assert classes == {str(due_class.value)}


@pytest.mark.parametrize("name", ["waiting", "find_due", "list_waiting", "list_sending"])
def test_a_statement_that_reads_all_classes_knows_them_all(name: str) -> None:
    (values,) = re.findall(r"VALUES\s(.*?)\s*\)\s*AS c \(class", code_of(name), re.DOTALL)
    assert re.findall(r"\((\d)", values) == [str(due_class.value) for due_class in DueClass]


@pytest.mark.parametrize("name", ["waiting", "find_due"])
def test_a_row_that_its_acceptor_publishes_counts_as_due_when_the_relay_would_read_it(
    name: str,
) -> None:
    spans = re.findall(rf"\({DueClass.DIRECT.value}, interval '(\d+) seconds'", code_of(name))
    assert spans == [f"{DIRECT_DELAY_S:g}"]


def test_the_breaker_statements_agree_on_the_waits_between_probes() -> None:
    longest_waits = {
        *re.findall(r"least\((\d+), \$5::float8 \* power", code_of("breaker_reopen")),
        *re.findall(r"ELSE (\d+) END", code_of("breaker_hold")),
    }
    assert longest_waits == {f"{MAX_PROBE_WAIT_S:g}"}
    assert re.findall(r"WHEN '(\w+)' THEN (\d+) ", code_of("breaker_hold")) == [
        (Opening.THROTTLED, f"{MAX_REST_S:g}")
    ]


def test_the_claim_beside_holds_claims_under_the_same_conditions_as_the_plain_one() -> None:
    plain, beside_holds = (
        re.findall(r"WHERE l\.id = ANY .*?IS TRUE", " ".join(code_of(name).split()))
        for name in ("claim", "claim_held")
    )
    assert len(plain) == 1
    assert plain == [condition.replace("w.", "t.") for condition in beside_holds]


def test_a_parked_row_waits_as_one_that_is_due_for_the_first_time() -> None:
    for name in ("park", "wake"):
        assert re.findall(r"class = (\d)", code_of(name)) == [str(DueClass.FIRST.value)]
    [due_class] = re.findall(r"class = CASE .* THEN l\.class ELSE (\d) END", code_of("claim_held"))
    assert due_class == str(DueClass.FIRST.value)


def test_a_claim_names_the_kinds_of_pauses_as_the_domain_does() -> None:
    kinds = re.findall(r"THEN '(\w+)' ELSE '(\w+)' END", code_of("claim_held"))
    assert kinds == [(ScopeKind.TAG, ScopeKind.TENANT)]


def test_a_reader_looks_for_the_begin_of_the_content_of_a_template() -> None:
    begin = TEMPLATED.decode()
    assert f"substr(n.content, 1, {len(begin)}) = '{begin}'" in code_of("read_notifications")
