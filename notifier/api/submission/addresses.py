"""Checks the form of a recipient by the address kind of its channel. Nothing is looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from notifier.api.rules import AddressKind
from notifier.domain.errors import InvalidNotification

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN_EMAIL: Final = re.compile(
    rf"(?=.{{1,64}}@)(?=.{{1,254}}\Z){_ATOM}(?:\.{_ATOM})*"
    rf"@(?:(?:{_LABEL}\.)+[A-Za-z]{{2,63}}|localhost)"
)
"""The common form of an address, checked at a tenth of email-validator's cost.

It also accepts the special-use domains that email-validator refuses: `localhost`, `.local`,
`.test`. Everything else that matches is valid for email-validator too.
"""
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")


def check_recipient(kind: AddressKind, recipient: str) -> None:
    """Raises InvalidNotification if the recipient is not an address of this kind."""
    is_valid, expected = _ADDRESS_RULES[kind]
    if not is_valid(recipient):
        raise InvalidNotification("recipient", expected)


def _is_email(text: str) -> bool:
    if _PLAIN_EMAIL.fullmatch(text):
        return True
    try:
        validate_email(text, strict=True, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


def _is_phone(text: str) -> bool:
    if not _E164.fullmatch(text):
        return False
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(text, None))
    except phonenumbers.NumberParseException:
        return False


def _is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


_ADDRESS_RULES: Final[Mapping[AddressKind, tuple[Callable[[str], bool], str]]] = {
    AddressKind.EMAIL: (_is_email, "an email address such as ada@example.com"),
    AddressKind.PHONE: (_is_phone, "a phone number in E.164 form such as +15005550006"),
    AddressKind.TOKEN: (_is_token, "a device token of 1 to 4096 printable ASCII characters"),
}
