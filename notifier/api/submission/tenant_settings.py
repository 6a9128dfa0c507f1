"""Checks the settings that a person gives a tenant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from notifier.api.auth.documents import TenantRequest
from notifier.api.submission.email_fields import checked_mailbox, is_text_sender
from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.domain.errors import InvalidNotification
from notifier.domain.one_line import CONTROL_CHARACTER, checked_note
from notifier.domain.senders import MAX_SENDERS
from notifier.domain.suppressions import TOPIC_EXPECTED, is_topic
from notifier.domain.templates import LOCALE_EXPECTED, is_locale
from notifier.domain.tenants import MAX_TITLE_LENGTH, MAX_TOPICS

_DOMAIN: Final = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_TITLE_EXPECTED: Final = f"1 to {MAX_TITLE_LENGTH} characters, without control characters"
_EXPECTED: Final = (
    "an address such as Shop <no-reply@shop.example>, a domain such as shop.example, or the sender "
    "of text messages: a number, or a name of 1 to 11 letters and digits"
)


def checked_settings(given: TenantRequest) -> TenantRequest:
    """Returns the settings as they are stored. Raises InvalidNotification."""
    checked_note(given.note)
    if given.locale is not None and not is_locale(given.locale):
        raise InvalidNotification("locale", LOCALE_EXPECTED)
    if len(given.topics) > MAX_TOPICS:
        raise InvalidNotification("topics", f"at most {MAX_TOPICS} topics")
    for name, title in given.topics.items():
        if not is_topic(name):
            raise InvalidNotification("topics", f"names, each {TOPIC_EXPECTED}")
        if not title or len(title) > MAX_TITLE_LENGTH or CONTROL_CHARACTER.search(title):
            raise InvalidNotification(f"topics.{name}", _TITLE_EXPECTED)
    return msgspec.structs.replace(given, senders=_senders(given.senders))


def _senders(texts: Sequence[str]) -> tuple[str, ...]:
    if len(texts) > MAX_SENDERS:
        raise InvalidNotification("senders", f"at most {MAX_SENDERS} senders")
    return tuple(_checked(text, f"senders.{n}") for n, text in enumerate(texts))


def _checked(text: str, field: str) -> str:
    if "@" in text:
        return str(checked_mailbox(text, field))
    if "." not in text:
        if is_text_sender(text):
            return text
        raise InvalidNotification(field, _EXPECTED)
    try:
        domain = ascii_domain(text).lower()
    except InvalidDomain as error:
        raise InvalidNotification(field, _EXPECTED) from error
    if not _DOMAIN.fullmatch(domain):
        raise InvalidNotification(field, _EXPECTED)
    return domain
