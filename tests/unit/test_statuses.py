"""A status has one name in Python, in Postgres's type and in every statement.

Each test compares one place with a table in this file. Someone who adds a status adds a column or
an entry to each table, and so decides for each place what it does with the new status.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from notifier.cli.send import SUCCEEDED
from notifier.cli.show import COLOURS
from notifier.domain.notification import FINAL, WAITING, Status
from tests.transitions import TRANSITIONS

ROOT = Path(__file__).parents[2]
POSTGRES = ROOT / "notifier/adapters/postgres"
STATEMENTS = {path.stem: path for path in sorted((POSTGRES / "sql").glob("*.sql"))}
MIGRATIONS = sorted((POSTGRES / "migrations/versions").glob("*.sql"))

# Statements: x marks a status that the file names. A row that is not in a marked status is left
# alone by the file, or takes the ELSE of a CASE.
NAMED_IN_SQL = """
                    scheduled queued sending retrying sent failed expired cancelled suppressed delivered undelivered
claim                   .       x       x       .      .     .       x        .         .          .          .
claimed_by_dead         .       .       x       .      .     .       .        .         .          .          .
claimed_by_me           .       .       x       .      .     .       .        .         .          .          .
give_back               .       x       x       .      .     .       x        .         .          .          .
insert                  x       x       .       .      .     .       .        .         .          .          .
list_notifications      x       x       .       x      .     .       .        .         .          .          .
record                  .       .       x       x      x     x       x        .         .          .          .
record_late             .       x       .       x      x     x       x        x         .          .          .
requeue_all             .       x       .       .      .     .       .        .         .          .          .
rescue                  .       x       .       .      .     .       .        .         .          .          .
rescue_from             .       x       .       .      .     .       .        .         .          .          .
settle_orphans          .       x       x       .      .     x       x        .         .          .          .
sweep                   x       x       .       x      .     .       x        .         .          .          .
take_due                x       x       .       x      .     .       .        .         .          .          .
unpublish               .       x       .       .      .     .       .        .         .          .          .
waiting                 .       x       .       .      .     .       .        .         .          .          .
"""  # noqa: E501 one column for each status

# Sets of statuses in Python: x marks a member.
SETS_IN_PYTHON = """
                    scheduled queued sending retrying sent failed expired cancelled suppressed delivered undelivered
waiting                 x       x       .       x      .     .       .        .         .          .          .
final                   .       .       .       .      x     x       x        x         x          x          x
succeeded               .       .       .       .      x     .       .        .         .          x          .
"""  # noqa: E501 one column for each status
SETS = {
    "waiting": (WAITING, "the statuses from which a notification is sent later"),
    "final": (FINAL, "the statuses in which a notification ends, unless a late result corrects it"),
    "succeeded": (SUCCEEDED, "the final statuses with which `send --wait` exits with 0"),
}

OTHER_WORDS_IN_SQL = {
    *("closed", "open", "half_open"),  # of breakers
    *("accepted", "ambiguous", "throttled"),  # of outcomes
    *("worker_died", "epoch", "off", "notifier", "notifications", "notifications_waiting"),
    *("notifier_controls", "alembic_version", "max_connections", "synchronous_commit"),
    *("superuser_reserved_connections", "reserved_connections", "default_transaction_read_only"),
    *("server_version", "server_version_num"),
}


def table(text: str) -> dict[str, set[str]]:
    """Each row's name with its marked statuses. Fails unless there is a column for each status."""
    header, *rows = text.strip().splitlines()
    columns = header.split()
    assert columns == [status.value for status in Status], (
        "the columns are not the statuses: decide for each row whether a new status belongs to it"
    )
    marks = {name: row for name, *row in map(str.split, rows)}
    assert all(len(row) == len(columns) for row in marks.values())
    return {
        name: {status for status, mark in zip(columns, row, strict=True) if mark == "x"}
        for name, row in marks.items()
    }


def words_in(path: Path) -> set[str]:
    """The string literals of one word, also those inside a quoted body."""
    without_comments = re.sub(r"--.*", "", path.read_text())
    return set(re.findall(r"'([a-z_]+)'", without_comments))


def statuses_in(path: Path) -> set[str]:
    return words_in(path) & {status.value for status in Status}


def test_the_postgres_type_has_the_same_statuses_in_the_same_order() -> None:
    scripts = "\n".join(path.read_text() for path in MIGRATIONS)
    created = re.findall(r"CREATE TYPE notification_status AS ENUM \(([^)]*)\)", scripts)
    added = re.findall(r"ALTER TYPE notification_status ADD VALUE '([a-z_]+)'", scripts)
    assert [*re.findall(r"'([a-z_]+)'", created[0]), *added] == [status.value for status in Status]


@pytest.mark.parametrize("path", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_names_the_statuses_that_the_table_says(path: Path) -> None:
    assert statuses_in(path) == table(NAMED_IN_SQL).get(path.stem, set()), (
        f"{path.name} and its row in NAMED_IN_SQL differ: decide for every status whether the "
        "statement must name it, then correct the one or the other"
    )


def test_every_row_of_the_table_is_a_statement() -> None:
    assert table(NAMED_IN_SQL).keys() <= STATEMENTS.keys()


@pytest.mark.parametrize("path", STATEMENTS.values(), ids=STATEMENTS)
def test_no_statement_misspells_a_status(path: Path) -> None:
    unknown = words_in(path) - {status.value for status in Status} - OTHER_WORDS_IN_SQL
    assert not unknown, (
        f"{path.name} contains words that are no status; a word that is meant to be something else "
        "belongs into OTHER_WORDS_IN_SQL"
    )


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_statuses_is_what_the_table_says(name: str) -> None:
    members, meaning = SETS[name]
    assert members == table(SETS_IN_PYTHON)[name], f"{name}: {meaning}"


def test_every_status_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(Status), "decide which statuses may follow and precede it"


def test_every_status_has_a_colour_in_the_command_line() -> None:
    assert {status.value for status in Status} <= COLOURS.keys(), "choose a colour in cli/show.py"


def test_the_design_document_describes_every_status() -> None:
    described = set(re.findall(r"\w+", (ROOT / "docs/design.md").read_text()))
    assert {status.value for status in Status} <= described, "add its transitions to the table"
