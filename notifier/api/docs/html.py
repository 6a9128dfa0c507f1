"""The frame of the HTML pages, without scripts or external assets."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1a1a1a;background:#fff}
pre{background:#f3f3f3;padding:.8rem;overflow-x:auto;border-radius:4px}
code,pre{font-family:ui-monospace,monospace;font-size:.85rem}
h2{border-top:1px solid #ccc;padding-top:1.5rem;overflow-wrap:anywhere}
table{border-collapse:collapse;margin:.8rem 0}td,th{text-align:left;padding:.15rem 1.2rem .15rem 0;
vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}pre{background:#242424}
a{color:#8ab4f8}h2{border-color:#444}}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def _headers(form_action: str) -> Sequence[tuple[bytes, bytes]]:
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        f"base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
    )
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


HTML_HEADERS: Final = _headers("'none'")
FORM_HEADERS: Final = _headers("'self'")
"""Of a page with a form that is sent to the API."""


def html_page(title: str, body: str) -> str:
    """Returns a page with this body, which is HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
