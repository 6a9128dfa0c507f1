"""Checks the senders that a person gives a tenant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from notifier.api.submission.email_fields import checked_mailbox, is_text_sender
from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.domain.errors import InvalidNotification
from notifier.domain.senders import MAX_SENDERS

_DOMAIN: Final = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_EXPECTED: Final = (
    "an address such as Shop <no-reply@shop.example>, a domain such as shop.example, or the sender "
    "of text messages: a number, or a name of 1 to 11 letters and digits"
)


def checked_senders(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the senders as they are stored. Raises InvalidNotification for `senders`."""
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
