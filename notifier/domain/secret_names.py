"""Which settings hold secrets, by their names."""

from __future__ import annotations

import re
from typing import Final

URL_NAMES: Final = frozenset({"url", "proxy"})
"""Settings whose value is a URL. A password or a key may be part of it."""
_SECRET_NAME: Final = re.compile(
    r"(?:^|_)(?:username|password|token|secret|api_?key|secret_key|service_account)$"
)

_API_KEY: Final = ("client", "key")
"""The other settings of this name are files."""


def is_secret(key: str) -> bool:
    """Return whether a dotted key may hold a secret. A secret may come from a file."""
    *tables, name = key.lower().split(".")
    if (*tables, name) == _API_KEY:
        return True
    return "headers" in tables or _SECRET_NAME.search(name) is not None or name in URL_NAMES
