"""Where the API is and which key is sent: what the caller says, else the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

URL: Final = "NOTIFIER_CLIENT__URL"
KEY: Final = "NOTIFIER_CLIENT__KEY"
KEY_FILE: Final = "NOTIFIER_CLIENT__KEY_FILE"


def api_url(given: str | None) -> str:
    """Return the URL of the API without a slash at its end. Raises ValueError."""
    url = (given if given is not None else os.environ.get(URL, "")).strip().rstrip("/")
    if not url:
        raise ValueError(f"no URL of Notifier: give url=... or set {URL}")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"url: expected https://host[:port][/prefix], got {url!r}")
    return url


def api_key(given: str | None) -> str:
    """Return the key to send, "" for none. Raises ValueError, which does not show it."""
    key = _configured_key() if given is None else given.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("key: expected one such as ntf_live_..., got other characters")
    return key


def _configured_key() -> str:
    if key := os.environ.get(KEY, "").strip():
        return key
    path = os.environ.get(KEY_FILE, "")
    return Path(path).read_text(encoding="utf-8-sig").strip() if path else ""
