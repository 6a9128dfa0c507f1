"""Rules of the repository, checked by reading its files."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".venv", ".cache", ".hypothesis", ".notifier", "__pycache__", "dist"}
LOCKS = ("requirements.lock", "requirements-dev.lock")
PEERS = (
    "benchmarks/peers/requirements.lock",
    "benchmarks/peers/requirements-oban.lock",
)
NODE_LOCKS = (
    "benchmarks/peers/node/package-lock.json",
    "tests/e2e/typescript/package-lock.json",
)
VAGUE = {"base", "common", "helpers", "manager", "managers", "misc", "util", "utils"}
ADRS = sorted((ROOT / "docs/adr").glob("*.md"))

# Joined from parts, so that this file does not match the patterns.
INDEX_HOSTS = re.compile(r"pypi\." + r"org|python" + r"hosted|find-" + r"links=|index-" + r"url=")
MACHINE_PATH = re.compile(r"(?<![\w.}/-])/(?:" + "work|root|home|Users)" + r"/\w")
UNFINISHED = re.compile(
    "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X:", "NotImplemented" + "Error"))
)
SKIPPED = re.compile(r"mark\.(skip|xfail)|pytest\.(skip|xfail|importorskip)|flaky" + r"\(")


def files(*suffixes: str) -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        paths = (Path(folder, name) for name in names if name not in NOT_OURS)
        yield from (path for path in paths if not suffixes or path.suffix in suffixes)


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    for path in files(*suffixes):
        content = path.read_bytes()
        if b"\0" not in content:
            yield str(path.relative_to(ROOT)), content.decode()


def found(pattern: re.Pattern[str], *suffixes: str) -> list[str]:
    lines = (
        (name, number, line)
        for name, text in texts(*suffixes)
        for number, line in enumerate(text.splitlines(), 1)
    )
    return [
        f"{name}:{number}: {line.strip()}" for name, number, line in lines if pattern.search(line)
    ]


def calls(folder: str) -> Iterator[tuple[str, ast.Call]]:
    for name, text in texts(".py"):
        if name.startswith(folder):
            nodes = ast.walk(ast.parse(text))
            yield from ((name, node) for node in nodes if isinstance(node, ast.Call))


def packages(lock: str) -> dict[str, str]:
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text())[1:]
    return {block.split(" ", 1)[0]: block for block in blocks}


def test_no_file_names_the_host_of_a_package_index() -> None:
    assert found(INDEX_HOSTS) == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert found(MACHINE_PATH) == []


def test_no_file_has_a_mark_of_unfinished_work() -> None:
    assert found(UNFINISHED, ".py", ".sql", ".js", ".toml", ".md", ".yml") == []


def test_no_test_is_skipped() -> None:
    assert found(SKIPPED, ".py") == []


def test_every_ignored_rule_has_a_reason() -> None:
    lint = (ROOT / "pyproject.toml").read_text().partition("[tool.ruff.lint]")[2]
    lists = lint.partition("[tool.ruff.lint.flake8-tidy-imports]")[0]
    rules = [line.strip() for line in lists.splitlines() if re.match(r'\s+"[A-Z]+\d*",', line)]
    assert len(rules) > 20
    assert [rule for rule in rules if not re.search(r",\s+# \S", rule)] == []


def test_every_noqa_has_a_reason() -> None:
    unexplained = {
        f"{name}: {code}"
        for name, text in texts(".py")
        for code in re.findall(r"# noqa: ([A-Z]+\d+)$", text, re.MULTILINE)
        if not re.search(rf"# noqa: .*{code},? +[^\s,]", text)
    }
    assert unexplained == set()


def test_no_module_has_a_vague_name() -> None:
    assert [str(path) for path in files(".py") if path.stem in VAGUE] == []


def test_every_task_is_started_in_a_task_group_with_a_name() -> None:
    violations = [
        f"{name}:{call.lineno}"
        for name, call in calls("notifier/")
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "create_task"
        and not (
            "group" in ast.unparse(call.func.value)
            and any(keyword.arg == "name" for keyword in call.keywords)
        )
    ]
    assert violations == []


def test_the_environment_is_read_in_one_place() -> None:
    reading = found(re.compile(r"\bos\.(environ|getenv)\b"), ".py")
    readers = {line.partition(":")[0] for line in reading if line.startswith("notifier/")}
    assert len({name for name in readers if not name.startswith("notifier/settings/")}) <= 1
    assert readers <= {"notifier/cli/environment.py", "notifier/settings/load.py"}


def test_the_locks_match_pyproject() -> None:
    command = [sys.executable, str(ROOT / ".ci/lock.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("lock", [*LOCKS, *PEERS])
def test_a_lock_contains_no_url_and_no_path(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert re.findall(r"\w+://\S+|^-.*|(?<!\w)/\w+/.*", text, re.MULTILINE) == []


@pytest.mark.parametrize("lock", NODE_LOCKS)
def test_a_lock_of_npm_has_hashes_and_no_registry(lock: str) -> None:
    locked = json.loads((ROOT / lock).read_text())["packages"]
    packages = [package for path, package in locked.items() if path]
    assert [package for package in packages if "integrity" not in package] == []
    assert [package for package in packages if "resolved" in package] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_for_every_platform(lock: str) -> None:
    hashes = {name: block.count("--hash=sha256:") for name, block in packages(lock).items()}
    single = {name.partition("==")[0] for name, count in hashes.items() if count < 2}
    assert {name for name in single if not is_one_file_for_every_platform(name)} == set()
    assert sum(hashes.values()) > 10 * len(hashes)


def is_one_file_for_every_platform(package: str) -> bool:
    """Whether its only file is a wheel that names no platform."""
    return "Tag: py3-none-any" in (distribution(package).read_text("WHEEL") or "")


def test_the_run_lock_is_a_subset_of_the_dev_lock() -> None:
    run, check = (packages(lock) for lock in LOCKS)
    assert set(run) <= set(check)


def test_decisions_are_numbered_without_gaps() -> None:
    assert [adr.name[:4] for adr in ADRS] == [f"{n:04}" for n in range(1, len(ADRS) + 1)]


@pytest.mark.parametrize("adr", ADRS, ids=lambda adr: adr.stem)
def test_a_decision_has_its_three_headings_and_fits_a_page(adr: Path) -> None:
    text = adr.read_text()
    assert re.findall("^## .*", text, re.MULTILINE) == [
        "## Context",
        "## Decision",
        "## Consequence",
    ]
    assert re.match(rf"# {int(adr.name[:4])}\. \S", text)
    assert len(text.splitlines()) <= 40


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+|[a-z-]+(?=:.*## )):", makefile, re.MULTILINE)
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make ([\w-]+) +\S", helped.stdout, re.MULTILINE) == targets


def test_ci_runs_make_check_and_nothing_else() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-1] == "exec make --no-print-directory check"
