"""What a wrong submit costs: how often it is decoded, and how often similar names are searched."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from notifier.api.http import decoding, field_by_field, suggestions
from notifier.api.http.field_by_field import MAX_SEARCHES
from notifier.api.submission.validation import SubmitValidator
from notifier.domain import similar_names
from notifier.domain.errors import InvalidNotification
from tests.unit.fakes_api import DEFAULT_RULES, submit_body

VALIDATOR = SubmitValidator(DEFAULT_RULES)
UNKNOWN = {f"zzz{chr(97 + n)}qqqq": n for n in range(15)}


def faults(body: object) -> list[InvalidNotification]:
    with pytest.raises(InvalidNotification) as caught:
        VALIDATOR.validate(json.dumps(body).encode())
    return [caught.value, *caught.value.others]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names for which similar ones were searched."""
    searched = list[str]()

    def most_similar(name: str, known: Any) -> str | None:
        searched.append(name)
        return search(name, known)

    search = similar_names.most_similar
    monkeypatch.setattr(suggestions, "most_similar", most_similar)
    return searched


def counted(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[object]:
    """The first arguments of the calls of a function from now on."""
    calls = list[object]()
    function: Callable[..., object] = getattr(module, name)

    def count(*args: object, **more: object) -> object:
        calls.append(args[0])
        return function(*args, **more)

    monkeypatch.setattr(module, name, count)
    return calls


def test_similar_names_are_searched_for_the_first_unknown_fields_only(searches: list[str]) -> None:
    found = faults(submit_body(**UNKNOWN, content={"subject": "s", **UNKNOWN}))
    assert len(found) == 20
    assert len(searches) == MAX_SEARCHES == 3
    assert all("unknown field" in str(fault) for fault in found)


def test_each_of_the_first_unknown_fields_gets_the_name_that_was_meant(searches: list[str]) -> None:
    found = faults(submit_body(prioritty=1, chanel=1, metadat=1, recipeint=1))
    assert [fault.expected for fault in found[:3]] == ["priority", "channel", "metadata"]
    assert found[3].expected.startswith("only ")
    assert len(searches) == 3


def test_names_of_other_apis_and_other_cases_need_no_search(searches: list[str]) -> None:
    found = faults(submit_body(**UNKNOWN, to=1, maxTries=1, text=1))
    assert [fault.expected for fault in found[-3:]] == ["recipient", "max_tries", "content.body"]
    assert len(searches) == 3


def test_a_body_with_a_wrong_field_is_decoded_field_by_field_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_field = counted(monkeypatch, decoding, "decode_fields")
    messages = counted(monkeypatch, decoding, "invalid_field")
    found = faults(submit_body(colour="red", ttl_s="x", recipient="ada"))
    assert [fault.field for fault in found] == ["colour", "ttl_s", "recipient"]
    assert (len(by_field), messages) == (1, [])


def test_a_body_whose_types_are_right_is_not_decoded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_field = counted(monkeypatch, decoding, "decode_fields")
    objects = counted(monkeypatch, field_by_field, "unknown_field")
    found = faults(submit_body(recipient="ada", max_tries=1.5))
    assert [fault.field for fault in found] == ["recipient", "max_tries"]
    assert (by_field, objects) == ([], [])
