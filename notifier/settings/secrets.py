"""Which settings are secret, and how they are shown: not in a repr, an error, `check-config`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MASK: Final = "***"
FROM_FILE: Final = "_file"

_WHOLE: Final = re.compile(r"(?:^|_)(?:username|password|token|secret|api_?key)$")
_URLS: Final = frozenset({"url"})
_QUERY: Final = re.compile(r"(?i)([^&=]*(?:key|token|secret|password|sig)[^&=]*)=[^&]*")


def is_secret(key: str) -> bool:
    """Whether a dotted key may hold a secret, and so may come from a file."""
    *tables, name = key.lower().split(".")
    return "headers" in tables or _WHOLE.search(name) is not None or name in _URLS


def masked(key: str, value: object) -> object:
    """The value as it may be shown. `key` is dotted; tables are masked all the way down."""
    if isinstance(value, Mapping):
        return {name: masked(f"{key}.{name}", inner) for name, inner in value.items()}
    if not is_secret(key) or value in ("", None):
        return value
    if key.lower().rpartition(".")[2] in _URLS:
        return _masked_url(str(value))
    return MASK


def _masked_url(url: str) -> str:
    """The URL without its password, its user, and the query parameters that look like secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    user, at, host = parts.netloc.rpartition("@")
    if "@" in parts.path + parts.query + parts.fragment:
        return MASK  # malformed: what stands before the last @ may be a password
    name, colon, _ = user.partition(":")
    user = f"{name}:{MASK}" if colon else user
    query = _QUERY.sub(rf"\1={MASK}", parts.query)
    return urlunsplit((parts.scheme, f"{user}{at}{host}", parts.path, query, ""))
