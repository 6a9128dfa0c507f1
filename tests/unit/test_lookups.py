from __future__ import annotations

from typing import Any

import msgspec
import pytest

from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import InvalidNotification
from notifier.domain.lookups import (
    MAX_VALUE_LENGTH,
    Lookup,
    LookupHasher,
    LookupRules,
    LookupScope,
    metadata_lookups,
)
from notifier.domain.recipients import recipient_identity
from tests.unit.fakes_api import make_rules, validated

ALL = LookupRules(recipient=True, tag=True, reference=True, metadata_keys=("order_id", "n"))
SUBMIT = {
    "channel": "email",
    "recipient": "Ada <Ada@EXAMPLE.com>",
    "content": {"subject": "Hello"},
    "tag": "summer/1",
    "metadata": {"order_id": "17", "n": 4, "other": "x"},
}


def lookups_of(rules: LookupRules, **changes: Any) -> tuple[Lookup, ...]:
    body = msgspec.json.encode({**SUBMIT, **changes})
    return validated(SubmitValidator(make_rules(lookups=rules)), body).lookups


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("Ada@EXAMPLE.com", "ada@example.com"),
        ("u@straße.test", "u@xn--strae-oqa.test"),
        ("u@XN--STRAE-OQA.test", "u@xn--strae-oqa.test"),
        ("+15005550006", "+15005550006"),
        ("Token:With/Case", "Token:With/Case"),
        ("a@\u2488com", "a@\u2488com"),
    ],
)
def test_spellings_of_one_recipient_have_one_form(given: str, normal: str) -> None:
    assert recipient_identity(given) == normal
    assert recipient_identity(normal) == normal


def test_a_submit_has_the_lookups_that_the_settings_ask_for() -> None:
    assert lookups_of(ALL) == (
        Lookup("recipient", "ada@example.com"),
        Lookup("tag", "summer/1"),
        Lookup("metadata.order_id", "17"),
        Lookup("metadata.n", "4"),
    )
    assert lookups_of(LookupRules(tag=False)) == ()
    assert lookups_of(LookupRules(), tag=None) == ()


@pytest.mark.parametrize("tag", ["", "a b", "é", "x" * 65, "a\n"])
def test_a_tag_that_is_none_is_refused(tag: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        lookups_of(ALL, tag=tag)
    assert caught.value.field == "tag"


def test_only_short_scalars_of_metadata_are_found() -> None:
    document = {"a": True, "b": None, "c": [1], "d": {"x": 1}, "e": "x" * (MAX_VALUE_LENGTH + 1)}
    encoded = msgspec.json.encode(document)
    assert list(metadata_lookups(encoded, list(document))) == [Lookup("metadata.a", "true")]
    assert list(metadata_lookups(b"{}", ["a"])) == []


def test_the_hash_depends_on_key_tenant_mode_kind_and_value() -> None:
    lookup = Lookup("tag", "x")
    hashes = {
        LookupHasher(key).digest(scope, looked_up)
        for key in (b"1" * 32, b"2" * 32)
        for scope in (LookupScope(), LookupScope("shop"), LookupScope("", "test"))
        for looked_up in (lookup, Lookup("recipient", "x"), Lookup("tag", "y"))
    }
    assert len(hashes) == 2 * 3 * 3
    with pytest.raises(ValueError, match="empty"):
        LookupHasher(b"")
