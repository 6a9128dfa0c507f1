"""The documents: links lead somewhere, names in them exist, and the README stays short."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
DECISIONS = sorted((ROOT / "docs/adr").glob("*.md"))
RELIABILITY = ROOT / "docs/reliability.md"


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and GitLab generate them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> Iterator[str]:
    for link in LINK.findall(document.read_text()):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    assert list(broken_links(document)) == []


def test_the_readme_has_at_most_1200_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_the_file_of_a_decision_is_named_by_its_title(decision: Path) -> None:
    title = decision.read_text().partition("\n")[0].removeprefix("# ")
    number, _, words = title.partition(". ")
    slug = "-".join(re.findall(r"[a-z0-9]+", words.lower()))
    assert decision.stem == f"{int(number):04}-{slug}"


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_status_that_names_another_decision_names_one_that_exists(decision: Path) -> None:
    status = re.findall(r"^Status: .*$", decision.read_text(), re.MULTILINE)
    assert len(status) == 1
    named = set(re.findall(r"\b\d{4}\b", status[0]))
    assert named <= {other.stem[:4] for other in DECISIONS} - {decision.stem[:4]}


def test_every_test_that_the_reliability_page_names_exists() -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)` `(test_\w+)`", RELIABILITY.read_text())
    assert len(named) > 10
    missing = [
        f"{file}: {test}"
        for file, test in named
        if f"def {test}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
