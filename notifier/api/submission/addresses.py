"""Checks the form of a recipient by the address kind of its channel. Nothing is looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from notifier.api.rules import AddressKind
from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.domain.errors import InvalidNotification
from notifier.domain.inbox import USER_EXPECTED, is_user_id

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


def checked_recipient(kind: AddressKind, recipient: str) -> str:
    """The recipient as it is stored and sent: an email domain in its ASCII form.

    Raises InvalidNotification if it is not an address of this kind.
    """
    check, expected = _ADDRESS_RULES[kind]
    checked = check(recipient)
    if checked is None:
        raise InvalidNotification("recipient", expected)
    return checked


def check_prefix(number: str, prefixes: Sequence[str]) -> None:
    """Raises InvalidNotification unless a phone number begins with one of the prefixes.

    Without prefixes all numbers are allowed.
    """
    if prefixes and not number.startswith(tuple(prefixes)):
        expected = f"a number that begins with {' or '.join(prefixes)} (limits.sms_prefixes)"
        raise InvalidNotification("recipient", expected)


def _checked_email(text: str) -> str | None:
    if _PLAIN_EMAIL.fullmatch(text):
        return text
    try:
        address = validate_email(
            text, strict=True, check_deliverability=False, test_environment=True
        )
        return f"{address.local_part}@{ascii_domain(address.domain)}"
    except (EmailNotValidError, InvalidDomain):
        return None


def _checked_phone(text: str) -> str | None:
    if not _E164.fullmatch(text):
        return None
    try:
        is_possible = phonenumbers.is_possible_number(phonenumbers.parse(text, None))
    except phonenumbers.NumberParseException:
        return None
    return text if is_possible else None


def _checked_user(text: str) -> str | None:
    return text if is_user_id(text) else None


def _checked_token(text: str) -> str | None:
    return text if _TOKEN.fullmatch(text) else None


_ADDRESS_RULES: Final[Mapping[AddressKind, tuple[Callable[[str], str | None], str]]] = {
    AddressKind.EMAIL: (_checked_email, "an email address such as ada@example.com"),
    AddressKind.PHONE: (_checked_phone, "a phone number in E.164 form such as +15005550006"),
    AddressKind.TOKEN: (_checked_token, "a device token of 1 to 4096 printable ASCII characters"),
    AddressKind.USER: (_checked_user, USER_EXPECTED),
}
