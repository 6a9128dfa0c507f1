"""A status has one name in Python, in Postgres's type and in every statement.

Each test compares one place with a table in this file. Someone who adds a status adds a column or
an entry to each table, and so decides for each place what it does with the new status.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from grafana.colours import FINAL_STATUSES
from notifier.cli.show import COLOURS
from notifier.cli.status import SUCCEEDED
from notifier.domain.notification import FINAL, WAITING, Status
from tests.transitions import TRANSITIONS

ROOT = Path(__file__).parents[2]
POSTGRES = ROOT / "notifier/adapters/postgres"
STATEMENTS = {path.stem: path for path in sorted((POSTGRES / "sql").glob("*.sql"))}
MIGRATIONS = sorted((POSTGRES / "migrations/versions").glob("*.sql"))
SCRIPTS = re.sub(r"--.*", "", "\n".join(path.read_text() for path in MIGRATIONS))

# Statements: how often the file names a status. A row whose status is not named is left alone by
# the file, or takes the ELSE of a CASE.
NAMED_IN_SQL = """
                    scheduled queued sending retrying sent failed expired cancelled suppressed delivered undelivered lost
cancel                  .       .       .       .      .     .       .        1         .          .          .       .
cancel_events           .       .       .       .      .     .       .        1         .          .          .       .
collapse                .       .       .       .      .     .       .        1         .          .          .       .
collapse_events         .       .       .       .      .     .       .        1         .          .          .       .
erase_end               .       .       .       .      .     .       .        .         1          .          .       .
erase_end_events        .       .       .       .      .     .       .        .         1          .          .       .
fail_unclaimable        .       .       .       .      .     1       .        .         .          .          .       .
fail_unclaimable_events .       .       .       .      .     1       .        .         .          .          .       .
failure_groups          .       .       .       .      .     2       .        .         .          .          .       .
insert_suppressed       .       .       .       .      .     .       .        .         1          .          .       .
insert_suppressed_events .      .       .       .      .     .       .        .         1          .          .       .
key_owners              .       .       .       .      .     .       .        .         1          .          .       .
list_expired            .       .       .       .      .     .       2        .         .          .          .       .
list_waiting            1       4       .       2      .     .       .        .         .          .          .       .
match_lookup            1       1       1       1      2     1       2        1         1          1          1       2
read_notifications      2       1       1       2      3     .       3        .         .          1          1       1
receipts_complained     .       .       .       .      1     .       .        .         .          .          .       .
receipts_end            .       .       .       .      .     .       .        .         .          3          1       .
receipts_end_undo       .       .       .       .      .     .       .        .         .          1          1       .
record                  .       .       .       5      .     .       1        .         .          .          .       .
record_late             .       .       .       1      2     1       1        1         1          .          .       .
record_late_events      .       .       .       .      1     .       .        .         .          .          .       .
record_sent             .       .       .       .      1     .       .        .         .          .          .       .
record_sent_events      .       .       .       .      1     .       .        .         .          .          .       .
retry                   .       .       .       .      .     1       2        1         1          .          1       .
retry_candidates        .       .       .       .      .     .       1        .         .          .          .       .
settle_orphans          .       4       .       .      .     1       1        .         .          .          .       .
settle_orphans_events   .       1       .       1      .     .       .        .         .          .          .       .
suppressions_end        .       .       .       .      .     .       .        .         1          .          .       .
suppressions_end_events .       .       .       .      .     .       .        .         1          .          .       .
sweep                   .       .       .       .      .     .       1        .         .          .          .       .
sweep_events            .       .       .       .      .     .       1        .         .          .          .       .
"""  # noqa: E501 one column for each status

# Sets of statuses in Python: 1 marks a member.
SETS_IN_PYTHON = """
                    scheduled queued sending retrying sent failed expired cancelled suppressed delivered undelivered lost
waiting                 1       1       .       1      .     .       .        .         .          .          .       .
final                   .       .       .       .      1     1       1        1         1          1          1       .
succeeded               .       .       .       .      1     .       .        .         .          1          .       .
"""  # noqa: E501 one column for each status
SETS = {
    "waiting": (WAITING, "the statuses from which a notification is sent later"),
    "final": (FINAL, "the statuses in which a notification ends, unless a late result corrects it"),
    "succeeded": (SUCCEEDED, "the final statuses with which `send --wait` exits with 0"),
}
FROM_RECEIPTS = {Status.DELIVERED, Status.UNDELIVERED}
"""What receipts make of what was sent. The dashboards count how sends ended, each once."""
REACHED = set(Status) - {Status.LOST}
"""The statuses that a notification reaches if no row is lost."""

TABLES = {
    "NAMED_IN_SQL": NAMED_IN_SQL,
    "SETS_IN_PYTHON": SETS_IN_PYTHON,
}

OTHER_WORDS_IN_SQL = {
    *("closed", "open", "half_open", "unanswered"),  # of breakers
    "collapsed",
    "complained",  # of receipts and their events
    *("tag", "tenant"),  # kinds of hold
    *("enabled", "disabled", "failing", "gone"),  # of webhooks
    *(
        "accepted",
        "ambiguous",
        "deferred",
        "misconfigured",
        "throttled",
        "unavailable",
    ),  # of outcomes
    *("inbox", "test"),  # of channels
    *("poison", "worker_died", "claim_rejected", "ttl"),  # of failures
    *("epoch", "infinity", "off", "true", "notifier", "notifications", "live"),
    *("floors", "marks", "is_backlogged"),  # of the progress of a lease
    *(
        "notifier_controls",
        "notifier_keys",
        "alembic_version",
        "max_connections",
        "synchronous_commit",
    ),
    *("superuser_reserved_connections", "reserved_connections", "default_transaction_read_only"),
    *("server_version", "server_version_num"),
    *("queues", "providers", "foreign", "connections", "object", "number"),  # of figures
    *("cancel", "retry", "erase", "running", "stopped", "request"),  # of operations
    *("signing", "lookups", "recipient", "file"),  # of secrets and lookups
    "erased",
    *("event_batches", "event_batches_"),
    *("turns", "test"),  # of tenants
    "hex",
    *("worker", "dev", "id", "kind", "host", "pid", "started_at"),  # of processes
    *("minute", "call"),  # of statistics
}


def table(text: str) -> dict[str, Counter[str]]:
    """Return how often each row names each status; a status without a column counts as absent."""
    header, *rows = text.strip().splitlines()
    cells = {name: row for name, *row in map(str.split, rows)}
    return {
        name: Counter(
            {
                status: int(cell)
                for status, cell in zip(header.split(), row, strict=True)
                if cell != "."
            }
        )
        for name, row in cells.items()
    }


def words_in(sql: str) -> Counter[str]:
    """Count the string literals of one word, also those inside a quoted body."""
    without_comments = re.sub(r"--.*", "", sql)
    return Counter(re.findall(r"'([a-z_]+)'", without_comments))


def statuses_in(sql: str) -> Counter[str]:
    words = words_in(sql)
    return Counter({status.value: words[status] for status in Status if status in words})


def added_statuses(scripts: str) -> list[str]:
    """Return the statuses that migrations add to the type. Fails where one is not at the end."""
    added = []
    for statement in re.findall(r"ALTER TYPE notification_status ([^;]*)", scripts):
        words = " ".join(statement.split())
        match = re.fullmatch(r"ADD VALUE (?:IF NOT EXISTS )?'([a-z_]+)'", words)
        assert match, (
            f"ALTER TYPE notification_status {words}: add one status at the end, without "
            "BEFORE or AFTER; the order in Python and in the type is the same"
        )
        added.append(match[1])
    return added


def schema() -> dict[str, str]:
    """Return the newest definition of each index that migrations make and of each function."""
    definitions: dict[str, str] = {}
    statement = re.compile(
        r"CREATE (?:UNIQUE )?INDEX (?P<index>\w+) ON (?P<columns>[^;]*);"
        r"|CREATE (?:OR REPLACE )?FUNCTION (?P<function>\w+)\((?P<body>.*?)\n\$\$;"
        r"|DROP INDEX (?P<dropped>\w+);"
        r"|DROP COLUMN (?P<column>\w+)"
        r"|ALTER INDEX (?P<old>\w+) RENAME TO (?P<new>\w+);",
        re.DOTALL,
    )
    for found in statement.finditer(SCRIPTS):
        if name := found["index"]:
            definitions[name] = found["columns"]
        elif name := found["function"]:
            definitions[name] = found["body"]
        elif name := found["dropped"]:
            definitions.pop(name, None)
        elif column := found["column"]:  # its indexes go with it
            for name, text in list(definitions.items()):
                if text.startswith("notifications ") and re.search(rf"\b{column}\b", text):
                    del definitions[name]
        elif found["old"] in definitions:
            definitions[found["new"]] = definitions.pop(found["old"])
    return definitions


def section(page: str, start: str, end: str) -> set[str]:
    """Return the statuses between the first `start` and the next `end` of a page."""
    text = (ROOT / page).read_text()
    assert start in text, f"{page} has no {start!r}"
    words = re.findall(r"\w+", text.split(start, 1)[1].split(end, 1)[0])
    return set(words) & set(Status)


def test_the_postgres_type_has_the_same_statuses_in_the_same_order() -> None:
    created = re.findall(r"CREATE TYPE notification_status AS ENUM \(([^)]*)\)", SCRIPTS)
    names = [*re.findall(r"'([a-z_]+)'", created[0]), *added_statuses(SCRIPTS)]
    stored = [status.value for status in Status if status is not Status.LOST]
    assert names == stored, "add a migration for the new status"


def test_a_migration_may_add_a_status_if_it_does_not_exist() -> None:
    sql = "ALTER TYPE notification_status ADD VALUE IF NOT EXISTS 'deferred';"
    assert added_statuses(sql) == ["deferred"]


@pytest.mark.parametrize("position", ["BEFORE 'sent'", "AFTER 'retrying'"])
def test_a_migration_must_add_a_status_at_the_end(position: str) -> None:
    with pytest.raises(AssertionError, match="at the end"):
        added_statuses(f"ALTER TYPE notification_status ADD VALUE 'deferred' {position};")


@pytest.mark.parametrize("name", TABLES)
def test_the_table_has_a_column_for_every_status(name: str) -> None:
    columns = TABLES[name].strip().splitlines()[0].split()
    assert columns == [status.value for status in Status], (
        f"{name}: decide for each of its rows whether a new status belongs to it, then add a column"
    )


@pytest.mark.parametrize("path", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_names_the_statuses_that_the_table_says(path: Path) -> None:
    named = statuses_in(path.read_text())
    assert named == table(NAMED_IN_SQL).get(path.stem, Counter()), (
        f"{path.name} and its row in NAMED_IN_SQL differ: decide at every condition of the "
        "statement whether it must name the status, then correct the one or the other"
    )


def test_every_row_of_the_table_is_a_statement() -> None:
    assert table(NAMED_IN_SQL).keys() <= STATEMENTS.keys()


def test_no_index_and_no_function_names_a_status() -> None:
    named = {name: statuses_in(sql) for name, sql in schema().items()}
    assert not {name: counts for name, counts in named.items() if counts}, (
        "a new status would need a migration with a new definition"
    )


def test_every_index_and_function_of_the_schema_is_read() -> None:
    assert {"drop_day", "ensure_days", "live_due", "ends_status"} <= schema().keys()
    assert "notifications_due" not in schema(), "an index goes with its column"


@pytest.mark.parametrize("path", STATEMENTS.values(), ids=STATEMENTS)
def test_no_statement_misspells_a_status(path: Path) -> None:
    unknown = words_in(path.read_text()).keys() - set(Status) - OTHER_WORDS_IN_SQL
    assert not unknown, (
        f"{path.name} contains words that are no status; a word that is meant to be something else "
        "belongs into OTHER_WORDS_IN_SQL"
    )


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_statuses_is_what_the_table_says(name: str) -> None:
    members, meaning = SETS[name]
    assert members == table(SETS_IN_PYTHON)[name].keys(), f"{name}: {meaning}"


def test_every_status_but_lost_waits_or_is_being_sent_or_is_final() -> None:
    groups = [*WAITING, Status.SENDING, *FINAL, Status.LOST]
    assert sorted(groups) == sorted(Status), (
        "add the status to WAITING or to FINAL in domain/notification.py"
    )


def test_every_status_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(Status), "decide which statuses may follow and precede it"


def test_every_status_has_a_colour_in_the_command_line() -> None:
    assert {status.value for status in Status} <= COLOURS.keys(), "choose a colour in cli/show.py"


def test_the_dashboards_show_every_final_status_that_is_reached() -> None:
    assert FINAL_STATUSES.keys() == FINAL - FROM_RECEIPTS, "choose its colour in grafana/colours.py"


def test_the_design_document_describes_every_status() -> None:
    described = section("docs/design.md", "\n## Statuses\n", "\n## ")
    assert described == set(Status), "add its transitions to the section Statuses"


def test_the_picture_in_the_readme_names_every_status_that_is_reached() -> None:
    named = section("README.md", "\n## Statuses\n\n```\n", "\n```\n")
    assert named == REACHED, "add the status to the picture in README.md"


def test_the_readme_says_which_statuses_are_final() -> None:
    sentence = section("README.md", "past its ttl\n```\n", "are final")
    assert sentence == FINAL, "correct the sentence below the picture in README.md"


def test_the_runbook_finds_every_notification_that_keeps_a_partition() -> None:
    named = section("docs/runbook/partition-kept.md", "**Check.**", "\n")
    assert named == WAITING | {Status.SENDING}, "list the rows of the status in partition-kept.md"
