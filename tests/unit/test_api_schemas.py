"""What the documented schemas allow and forbid is what the API accepts and refuses."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import phonenumbers
import pytest
from jsonschema_rs import Draft202012Validator

from notifier.api.docs.openapi import openapi_document
from notifier.api.requests import NO_CONTROL_CHARACTERS, NO_NUL
from notifier.api.routes.table import ROUTES
from notifier.api.rules import AddressKind
from notifier.api.submission.address_schemas import recipient_schema
from notifier.api.submission.addresses import checked_recipient
from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import EndReason
from notifier.domain.one_line import CONTROL_CHARACTER
from tests.unit.fakes_api import DEFAULT_RULES, submit_body

SCHEMAS = openapi_document(ROUTES, DEFAULT_RULES)["components"]["schemas"]
SUBMIT = Draft202012Validator(
    {"$ref": "#/components/schemas/Submit", "components": {"schemas": SCHEMAS}}
)
VALIDATOR = SubmitValidator(DEFAULT_RULES)
SMS = {"channel": "sms", "recipient": "+15005550006"}
PUSH = {"channel": "push", "recipient": "token"}

ALLOWED: list[dict[str, object]] = [
    {},
    {"recipient": "ada@localhost"},
    {"recipient": "Ada O'Neill <ada@example.com>"},
    {
        "content": {
            "subject": "x",
            "from": "Shop <shop@example.com>",
            "reply_to": "help@example.com",
            "cc": ["Bob <bob@example.com>"],
            "bcc": None,
            "headers": {"X-Order": "17"},
        }
    },
    {"recipient": "o'neill+a@mail.example.co.uk"},
    {"recipient": "ada@bücher.example"},
    {"content": {"subject": "x", "html": "<p>"}},
    {"content": {"subject": "x", "body": "a\n\tb", "html": None}},
    {"metadata": None, "ttl_s": None, "send_at": None, "max_tries": None},
    {"metadata": {"a": [1, None, {"b": "c\n"}], "": 1.5}, "max_tries": 3.0},
    {**SMS, "content": {"body": "x"}},
    {**PUSH, "content": {"data": {}}},
]
FORBIDDEN: list[dict[str, object]] = [
    {"channel": "fax"},
    {"priority": "urgent"},
    {"recipient": ""},
    {"recipient": "ada"},
    {"recipient": "ada@nowhere"},
    {"recipient": "Ada <ada@example.com"},
    {"recipient": "+15005550006"},
    {"content": {}},
    {"content": {"subject": "", "body": "x"}},
    {"content": {"subject": None, "body": "x"}},
    {"content": {"body": "x", "html": "x"}},
    {"content": {"data": {"a": 1}}},
    {"content": {"subject": "a\nb"}},
    {"content": {"subject": "a\u0085b"}},
    {"content": {"subject": "x" * 999}},
    {"content": {"subject": "x", "body": "a\0b"}},
    {"content": {"subject": "x", "data": {"a": [{"b": "\0"}]}}},
    {"content": {"subject": "x", "data": {"a\0": 1}}},
    {"content": {"subject": "x", "data": []}},
    {"metadata": {"a": {"b": ["\0"]}}},
    {"metadata": "a"},
    {"max_tries": 1.5},
    {"max_tries": 0},
    {"ttl_s": 0},
    {"colour": "red"},
    {**SMS, "content": {"subject": "x"}},
    {**SMS, "content": {"body": ""}},
    {**SMS, "recipient": "+1500555000", "content": {"body": "x"}},
    {**SMS, "recipient": "+999123456789", "content": {"body": "x"}},
    {**SMS, "recipient": "ada@example.com", "content": {"body": "x"}},
    {**PUSH, "recipient": "a b"},
    {**PUSH, "content": {"html": "x"}},
]


def is_accepted(body: dict[str, object]) -> bool:
    try:
        VALIDATOR.validate(json.dumps(body).encode())
    except InvalidNotification:
        return False
    return True


@pytest.mark.parametrize("changes", ALLOWED, ids=repr)
def test_a_submit_that_is_accepted_fits_its_schema(changes: dict[str, object]) -> None:
    body = submit_body(**changes)
    assert is_accepted(body)
    assert list(SUBMIT.iter_errors(body)) == []


@pytest.mark.parametrize("changes", FORBIDDEN, ids=repr)
def test_a_submit_that_is_refused_does_not_fit_its_schema(changes: dict[str, object]) -> None:
    body = submit_body(**changes)
    assert not is_accepted(body)
    assert not SUBMIT.is_valid(body)


def characters() -> list[str]:
    return [chr(code) for code in range(0x3000) if not 0xD800 <= code < 0xE000]


def test_the_documented_patterns_of_texts_are_the_checked_ones() -> None:
    for character in characters():
        is_allowed = CONTROL_CHARACTER.search(character) is None
        text = f"a{character}b"
        assert (re.search(NO_CONTROL_CHARACTERS, text) is not None) == is_allowed, repr(character)
        assert (re.search(NO_NUL, text) is not None) == (character != "\0"), repr(character)


def test_the_documented_pattern_of_tokens_is_the_checked_one() -> None:
    pattern = recipient_schema(AddressKind.TOKEN)["pattern"]
    for character in characters():
        token = f"a{character}b"
        try:
            checked_recipient(AddressKind.TOKEN, token)
        except InvalidNotification:
            assert not re.search(pattern, token), repr(character)
        else:
            assert re.search(pattern, token), repr(character)


def test_a_number_that_fits_the_documented_pattern_is_possible() -> None:
    pattern = re.compile(recipient_schema(AddressKind.PHONE)["pattern"])
    digits = random.Random(1)
    matched = set[int]()
    for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        for length in range(1, 16 - len(str(code))):
            for first in range(10):
                rest = "".join(digits.choices("0123456789", k=length - 1))
                number = f"+{code}{first}{rest}"
                if pattern.search(number):
                    matched.add(code)
                    checked_recipient(AddressKind.PHONE, number)
    assert matched == set(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def parts(schema: object) -> list[dict[str, Any]]:
    """The schema and every part of it."""
    match schema:
        case dict():
            return [schema, *(part for value in schema.values() for part in parts(value))]
        case list():
            return [part for value in schema for part in parts(value)]
        case _:
            return []


def test_no_field_of_a_body_has_a_default_since_generators_would_require_it() -> None:
    assert [part for part in parts(SCHEMAS) if "default" in part] == []


def test_every_enumeration_has_a_type() -> None:
    assert all(part["type"] == "string" for part in parts(SCHEMAS) if "enum" in part)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Submit", "metadata"),
        ("Content", "data"),
        ("Summary", "metadata"),
        ("Notification", "metadata"),
        ("Notification", "content"),
    ],
)
def test_an_object_of_any_form_is_declared_as_one(name: str, field: str) -> None:
    assert SCHEMAS[name]["properties"][field]["additionalProperties"] is True


@pytest.mark.parametrize(
    ("name", "required"),
    [
        ("Submit", ["channel", "recipient"]),
        ("Content", []),
        ("PauseRequest", []),
        ("Batch", ["notifications"]),
    ],
)
def test_optional_fields_are_not_required(name: str, required: list[str]) -> None:
    assert SCHEMAS[name]["required"] == required


def test_the_document_of_a_result_names_every_reason() -> None:
    named = set(re.findall(r"\w+", SCHEMAS["Result"]["description"]))
    assert set(EndReason) <= named
