"""Checks what is asked of webhooks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from notifier.api.http.suggestions import suggested
from notifier.api.rules import WebhookRules
from notifier.domain.errors import InvalidNotification
from notifier.domain.public_addresses import may_be_called, parse_address, parse_networks
from notifier.domain.webhooks import WebhookScope, allowed_types

_ADDRESS_EXPECTED: Final = "a URL at a public address, or one in webhooks.allow_private"
_CHARACTERS: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""What a URL may consist of, and none of the characters that parsers of URLs take differently."""


def checked_url(text: str, rules: WebhookRules) -> str:
    """Returns a URL that may be called. Raises InvalidNotification.

    A name may still have an address that may not be called: each call checks that.
    """
    scheme = "http:// or https://" if rules.allow_http else "https://"
    expected = (
        f"a URL that begins with {scheme} and has a host, in ASCII, without user and fragment"
    )
    if not _CHARACTERS.fullmatch(text):
        raise InvalidNotification("url", expected)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidNotification("url", expected) from error
    schemes = {"https", "http"} if rules.allow_http else {"https"}
    if parts.scheme not in schemes or not host or port == 0:
        raise InvalidNotification("url", expected)
    if "@" in parts.netloc or "#" in text:
        raise InvalidNotification("url", expected)
    address = parse_address(host)
    if address is not None and not may_be_called(address, parse_networks(rules.allow_private)):
        raise InvalidNotification("url", _ADDRESS_EXPECTED)
    return text


def checked_events(names: Sequence[str], scope: WebhookScope) -> Sequence[str]:
    """Returns the types of events of a webhook, each once. Raises InvalidNotification."""
    allowed = allowed_types(scope)
    for index, name in enumerate(names):
        if name not in allowed:
            field = f"events.{index}"
            if meant := suggested(name, allowed):
                detail = f"unknown type, did you mean {meant}?"
                raise InvalidNotification(field, meant, detail=detail)
            raise InvalidNotification(field, f"one of {', '.join(allowed)}")
    return sorted(set(names))
