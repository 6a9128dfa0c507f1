"""Phone numbers outside `limits.sms_prefixes` are refused at submit."""

from __future__ import annotations

import json

import pytest

from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import InvalidNotification
from tests.unit.fakes_api import make_rules, submit_body, validated

AUSTRIA_AND_ONE_NETWORK = ["+43", "+4915"]


def validate(recipient: str, prefixes: list[str], **changes: object) -> str:
    body = submit_body(
        **{"channel": "sms", "recipient": recipient, "content": {"body": "b"}} | changes
    )
    validator = SubmitValidator(make_rules(sms_prefixes=prefixes))
    return validated(validator, json.dumps(body).encode()).recipient


@pytest.mark.parametrize("number", ["+4366012345678", "+4915112345678"])
def test_numbers_with_an_allowed_prefix_are_accepted(number: str) -> None:
    assert validate(number, AUSTRIA_AND_ONE_NETWORK) == number


@pytest.mark.parametrize("number", ["+491711234567", "+15005550006", "+447911123456"])
def test_all_others_are_refused_and_the_problem_names_the_prefixes(number: str) -> None:
    with pytest.raises(InvalidNotification) as refused:
        validate(number, AUSTRIA_AND_ONE_NETWORK)
    assert refused.value.field == "recipient"
    assert "+43 or +4915" in refused.value.expected
    assert "limits.sms_prefixes" in refused.value.expected


def test_without_prefixes_every_number_is_accepted() -> None:
    assert validate("+15005550006", []) == "+15005550006"


def test_a_number_in_another_form_is_refused_before_its_prefix_is_read() -> None:
    with pytest.raises(InvalidNotification) as refused:
        validate("0043 660 1234567", AUSTRIA_AND_ONE_NETWORK)
    assert "E.164" in refused.value.expected


def test_other_channels_are_not_concerned() -> None:
    email = {"channel": "email", "content": {"subject": "s", "body": "b"}}
    assert validate("ada@example.com", AUSTRIA_AND_ONE_NETWORK, **email) == "ada@example.com"


def test_the_problem_is_told_beside_those_of_other_fields() -> None:
    with pytest.raises(InvalidNotification) as refused:
        validate("+15005550006", AUSTRIA_AND_ONE_NETWORK, max_tries=1.5)
    assert {fault.field for fault in (refused.value, *refused.value.others)} == {
        "recipient",
        "max_tries",
    }
