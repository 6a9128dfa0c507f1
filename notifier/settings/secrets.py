"""How secret settings are masked in reprs, errors and `check-config`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from notifier.domain.secret_names import URL_NAMES, is_secret

MASK: Final = "***"
FROM_FILE: Final = "_file"

_PARAMETER: Final = re.compile(r"(?i)key|token|secret|password|sig")


def masked(key: str, value: object) -> object:
    """Return the value with secrets masked, in nested tables too. `key` is dotted."""
    if isinstance(value, Mapping):
        return {name: masked(f"{key}.{name}", inner) for name, inner in value.items()}
    if not is_secret(key) or value in ("", None):
        return value
    if key.lower().rpartition(".")[2] in URL_NAMES:
        return _masked_url(str(value))
    return MASK


def shown(key: str, value: object) -> str:
    """Return a wrong value as an error shows it.

    A URL is masked as a whole, since in a malformed one the password can be anywhere.
    """
    text = repr(str(value) if isinstance(value, str) else value)
    return MASK if value and (is_secret(key) or "://" in text) else text


def _masked_url(url: str) -> str:
    """Mask the password of a URL, and query parameters that look like secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    user, at, host = parts.netloc.rpartition("@")
    if "@" in parts.path + parts.query + parts.fragment:
        return MASK  # malformed: the text before the last @ may be a password
    name, colon, _ = user.partition(":")
    user = f"{name}:{MASK}" if colon else user
    query = "&".join(map(_masked_parameter, parts.query.split("&")))
    return urlunsplit((parts.scheme, f"{user}{at}{host}", parts.path, query, ""))


def _masked_parameter(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    return f"{name}={MASK}" if value and _PARAMETER.search(unquote(name)) else parameter
