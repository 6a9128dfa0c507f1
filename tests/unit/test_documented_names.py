"""Whatever the documents name in code spans exists: keys, commands, metrics, events, files.

Checked are README.md, docs/, the runbook and the unreleased part of CHANGELOG.md. Decisions (ADRs)
are left out: they describe the past.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, get_args, get_origin

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from cyclopts import App

from notifier.adapters.providers.registry import PROVIDER_TYPES
from notifier.api.http.problem_types import ProblemType
from notifier.api.routes.table import ROUTES
from notifier.cli.commands import app
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.events import EventType
from notifier.domain.notification import Status
from notifier.scheduling.deployment_status import NO_CHANNEL, NO_WORKER
from notifier.settings.sources import CONFIG, SHORT_NAMES
from notifier.settings.tree import Settings
from tests.unit.test_documented_telemetry import exposed, logged_fields

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/runbook").glob("*.md")),
)
SOURCES: Final = ("notifier", "config", "deploy", "grafana", "harness", "benchmarks")
CODE: Final = frozenset(
    {".py", ".sql", ".toml", ".yml", ".yaml", ".sh", ".conf", ".json", ".service", ".dockerfile"}
)
FOLDERS: Final = (
    *(ROOT, ROOT / "notifier", ROOT / "tests", ROOT / "docs", ROOT / "deploy"),
    ROOT / "notifier/adapters/postgres",
)
MADE_LATER: Final = frozenset({".env", "notifier.toml", "template.toml", "schema.json"})
"""Files of a user, which the repository does not have."""

SPAN: Final = re.compile(r"`([^`\n]+)`")
FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SNAKE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
METRIC: Final = re.compile(r"(notifier_[a-z0-9_]+)(\{.*\})?")
VARIABLE: Final = re.compile(r"\bNOTIFIER_[A-Z0-9_]+\b")
KEY: Final = re.compile(r"\[?([a-z_]+(?:\.[a-z_<>*]+)+)\]?(?: = .+)?")
ALERT: Final = re.compile(r"\bNotifier[A-Z][A-Za-z]+\b")
REQUEST: Final = re.compile(r"(GET|POST|PUT|DELETE|PATCH) (/[^\s?]*)(\?.*)?")
FILE: Final = re.compile(r"[\w./<>*{}-]+\.(py|sql|md|toml|yml|yaml|json|sh|conf|dot|svg)")
PROBLEM: Final = re.compile(r"(\d{3}) ([a-z]+(?:-[a-z]+)+)")

OF_OTHERS: Final = frozenset(
    {
        *("acks_late", "autoretry_for", "max_retries", "rate_limit", "retry_backoff"),
        *("task_routes", "backend_xid", "pg_upgrade", "GET /alerts", "POST /alerts"),
    }
)
"""Names of Celery, of Postgres and of the sandbox."""

FORMER: Final = frozenset(
    {
        *("again_in_s", "behind_schedule_s", "consumers_at_most", "rest_s", "seconds_left"),
        *("unpublish_failed", "unpublished_recovered", "unpublished_recovery_failed"),
    }
)
"""Names that an entry of the changelog says were renamed or removed."""


class Named(NamedTuple):
    """A code span and where it stands."""

    document: Path
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: `{self.text}`"


def spans(document: Path) -> Iterator[Named]:
    text = FENCE.sub("", document.read_text())
    if document.name == "CHANGELOG.md":
        text = _without_old_names(text.split("\n## [", 2)[1])
    for line in text.splitlines():
        for span in SPAN.findall(line):
            yield Named(document, span)


def _without_old_names(text: str) -> str:
    """Blank the first column of each table with the heading `old`."""
    lines, in_table = [], False
    for line in text.splitlines():
        cells = line.strip().strip("|").split("|")
        is_row = line.strip().startswith("|")
        in_table = is_row and (in_table or cells[0].strip() == "old")
        lines.append("|".join(cells[1:]) if in_table else line)
    return "\n".join(lines)


ALL: Final = [named for document in DOCUMENTS for named in spans(document)]


def missing(exists: Callable[[str], bool], select: Callable[[str], str | None]) -> list[str]:
    """The spans of which `select` takes a name that does not exist."""
    return sorted(
        {
            str(named)
            for named in ALL
            if (name := select(named.text)) is not None
            and name not in FORMER | OF_OTHERS
            and not exists(name)
        }
    )


def test_the_metrics_exist() -> None:
    known = set(exposed()) | _recorded()
    suffixes = ("_bucket", "_count", "_sum")

    def exists(name: str) -> bool:
        base = next((name.removesuffix(end) for end in suffixes if name.endswith(end)), name)
        return name in known or base in known or name in words()

    def select(span: str) -> str | None:
        match = METRIC.fullmatch(span)
        return match and match[1]

    assert missing(exists, select) == []


def test_the_settings_exist() -> None:
    sections = set(Settings.__struct_fields__) - {"content"}  # also a field of a submit

    def select(span: str) -> str | None:
        match = KEY.fullmatch(span)
        if match is None or match[1].split(".")[0] not in sections or FILE.fullmatch(span):
            return None
        return match[1]

    types = set(EventType)
    assert (
        missing(lambda key: is_setting(key.split(".")) or is_attribute(key) or key in types, select)
        == []
    )


def test_the_environment_variables_exist() -> None:
    def exists(span: str) -> bool:
        return all(map(is_variable, VARIABLE.findall(span)))

    assert missing(exists, lambda span: span if VARIABLE.search(span) else None) == []


def test_the_commands_and_their_options_exist() -> None:
    def select(span: str) -> str | None:
        return span if re.match(r"notifier (?!= )", span) else None

    assert missing(is_command, select) == []


def test_the_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    def select(span: str) -> str | None:
        match = re.match(r"make ([a-z-]+)", span)
        return match and match[1]

    assert missing(targets.__contains__, select) == []


def test_the_files_exist() -> None:
    def select(span: str) -> str | None:
        return span if FILE.fullmatch(span) and "://" not in span else None

    assert missing(is_file, select) == []


def test_the_routes_exist() -> None:
    known = {(route.method.upper(), re.sub(r"\{[^}]*\}", "{}", route.path)) for route in ROUTES}

    def exists(span: str) -> bool:
        match = REQUEST.fullmatch(span)
        assert match
        path = re.sub(r"\{[^}]*\}|<[^>]*>|\.\.\.", "{}", match[2])
        return any(
            method == match[1] and re.fullmatch(re.escape(of).replace(r"\{\}", "[^/]+"), path)
            for method, of in known
        )

    assert missing(exists, lambda span: span if REQUEST.fullmatch(span) else None) == []


def test_the_problems_of_the_api_have_the_documented_status() -> None:
    known = {f"{kind.status} {kind.value.slug}" for kind in ProblemType}
    assert missing(known.__contains__, lambda span: span if PROBLEM.fullmatch(span) else None) == []


def test_the_alerts_exist() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/notifier.yml").read_text())
    known = {
        rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    }
    text = {path: path.read_text() for path in DOCUMENTS if path.name != "CHANGELOG.md"}
    named = {(path.name, name) for path in text for name in ALERT.findall(text[path])}
    assert {(path, name) for path, name in named if name not in known | words()} == set()


def test_a_number_of_alerts_is_right() -> None:
    rules = (ROOT / "deploy/prometheus/rules/notifier.yml").read_text()
    named = [re.findall(r"\b(\d+) alerts\b", path.read_text()) for path in DOCUMENTS]
    assert {number for numbers in named for number in numbers} <= {str(rules.count("- alert:"))}


def test_the_values_of_limited_by_exist() -> None:
    known = {*Limit, NO_WORKER, NO_CHANNEL}

    def select(span: str) -> str | None:
        return span.partition(": ")[2] if span.startswith("limited_by: ") else None

    assert missing(known.__contains__, select) == []


def test_the_log_events_exist() -> None:
    logged = logged_fields()
    text = "\n".join(path.read_text() for path in DOCUMENTS if path.name != "CHANGELOG.md")
    named = re.findall(r"\blogs?(?: events?)? `([a-z]+(?:_[a-z]+)+)`", text, re.IGNORECASE)
    assert len(named) > 10
    assert set(named) - set(logged) == set()


def test_the_statuses_exist() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    named = re.findall(r"\bstatus(?:es)? `([a-z]+)`", text) + re.findall(
        r"[?&]status=([a-z]+)", text
    )
    assert set(named) - set(Status) == set()


def test_every_other_name_with_an_underscore_is_in_the_code() -> None:
    """Log events, fields, columns, outcomes and functions."""

    def select(span: str) -> str | None:
        return span if SNAKE.fullmatch(span) else None

    def exists(name: str) -> bool:
        base = name.removesuffix("_total")
        return bool({name, base, base.removeprefix("notifier_"), f"notifier_{base}"} & words())

    page = "docs/reliability.md: "  # it names tests and faults, too
    unknown = [name.removeprefix(page).strip("`") for name in missing(exists, select)]
    assert [name for name in unknown if name not in names_of_tests()] == []


@pytest.mark.parametrize("name", sorted(FORMER | OF_OTHERS))
def test_an_exception_is_still_needed(name: str) -> None:
    assert any(name in named.text for named in ALL)


def _recorded() -> set[str]:
    text = "\n".join(path.read_text() for path in (ROOT / "deploy/prometheus").rglob("*.yml"))
    return set(re.findall(r"record: (\S+)", text))


@cache
def words() -> frozenset[str]:
    """Every identifier of the code, of its settings files and of what is deployed."""
    files = [path for folder in SOURCES for path in _code_files(ROOT / folder)]
    return _words_of([*files, ROOT / "pyproject.toml", ROOT / "docker-compose.yml"])


@cache
def names_of_tests() -> frozenset[str]:
    """Every identifier of the tests."""
    return _words_of(path for path in _code_files(ROOT / "tests") if path != Path(__file__))


def _code_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix in CODE and path.is_file())


def _words_of(files: Iterable[Path]) -> frozenset[str]:
    word = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    return frozenset(found for path in files for found in word.findall(path.read_text()))


def is_setting(path: list[str], of: object = Settings) -> bool:
    """Whether a dotted key exists; `*` and `<name>` stand for any name, `*` also for any field."""
    if not path:
        return True
    if of is Settings and path[0] == "providers":
        kinds = PROVIDER_TYPES.values()
        return len(path) <= 2 or any(is_setting(path[2:], kind) for kind in kinds)
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(of)}
        if path[0] in {"*", "<key>"}:
            return True
        field = fields.get(path[0], fields.get(path[0].removesuffix("_file")))
        return field is not None and is_setting(path[1:], field)
    if get_origin(of) is not None and _is_mapping(of):
        return is_setting(path[1:], get_args(of)[1])
    return any(is_setting(path, inner) for inner in get_args(of)) if get_args(of) else False


def _is_mapping(of: object) -> bool:
    origin = get_origin(of)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def is_attribute(key: str) -> bool:
    """Whether a dotted name is one of the code, such as a module."""
    return (ROOT / "notifier" / Path(*key.split("."))).with_suffix(".py").exists()


def is_variable(name: str) -> bool:
    if name in {CONFIG, *SHORT_NAMES} or name.endswith("_"):
        return True
    path = name.removeprefix("NOTIFIER_").lower().split("__")
    return is_setting(path)


def is_command(line: str) -> bool:
    """Whether `notifier ...` names a command and only options that this command has."""
    _, *tokens = line.split()
    if tokens[0].startswith("-"):
        return tokens[0] in {"--help", "--version"}
    path: tuple[str, ...] = ()
    while len(path) < len(tokens) and tokens[len(path)] in _subcommands(*path):
        path = (*path, tokens[len(path)])
    if not path or _subcommands(*path):
        return False
    named = [token.partition("=")[0] for token in tokens[len(path) :] if token.startswith("-")]
    return all(option in _options(*path) or option.startswith("--data.") for option in named)


def _command(*path: str) -> App:
    command = app
    for word in path:
        command = command[word]
    return command


def _subcommands(*path: str) -> frozenset[str]:
    return frozenset(name for name in _command(*path) if not name.startswith("-"))


@cache
def _options(*path: str) -> frozenset[str]:
    arguments = _command(*path).assemble_argument_collection()
    return frozenset({"--help", "-h", *(name for each in arguments for name in each.names)})


def is_file(name: str) -> bool:
    if Path(name).name in MADE_LATER or any(sign in name for sign in "<>{}"):
        return True
    if "/" in name or "*" in name:
        return any(list(folder.glob(name.lstrip("/"))) for folder in FOLDERS)
    return name in _file_names()


@cache
def _file_names() -> frozenset[str]:
    skipped = {".git", ".venv", "node_modules", ".notifier", ".cache"}
    names: set[str] = set()
    for _, folders, files in os.walk(ROOT):
        folders[:] = [folder for folder in folders if folder not in skipped]
        names.update(files)
    return frozenset(names)
