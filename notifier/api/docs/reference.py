"""`/docs`: the OpenAPI document as one page of HTML, without scripts and without outside assets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Scope

from notifier.api.docs.openapi import Json, openapi_document
from notifier.api.docs.type_words import type_words
from notifier.api.http.raw_response import RawResponse, read_route
from notifier.api.settings import ApiSettings
from notifier.domain.controls import ScopeKind

DOCS: Final = "/docs"
DOCUMENT: Final = "/docs/openapi.json"
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
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HTML_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_EXAMPLE: Final[Json] = {
    "channel": "email",
    "priority": "high",
    "recipient": "ada@example.com",
    "content": {"subject": "Your code", "body": "Your code is 123456."},
}
_EXAMPLES: Final[dict[str, Json]] = {
    "submit": _EXAMPLE,
    "submitBatch": {"notifications": [_EXAMPLE]},
    **{f"pause{kind.capitalize()}": {"reason": "maintenance", "for": 600} for kind in ScopeKind},
}


def reference_handlers(settings: ApiSettings) -> Sequence[HTTPRouteHandler]:
    """Make the handlers of the reference. The page names the server as its reader does."""
    document = openapi_document(settings)
    document_answer = RawResponse(200, json.dumps(document).encode())

    @read_route("/")
    async def root() -> ASGIApp:
        return RawResponse(307, b"", [(b"location", DOCS.encode())])

    @read_route(DOCS)
    async def page(request: Request[Any, Any, Any]) -> ASGIApp:
        shown = reference_page(document, base_of(request.scope))
        return RawResponse(200, shown.encode(), _HTML_HEADERS)

    @read_route(DOCUMENT)
    async def openapi() -> ASGIApp:
        return document_answer

    return [root, page, openapi]


def base_of(scope: Scope) -> str:
    """Return where the reader found this server; it ends up in commands that are pasted."""
    said = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    host, port = scope["server"] or ("127.0.0.1", None)
    own = f"[{host}]" if ":" in host else host
    return f"{scope['scheme']}://{said if _HOST.fullmatch(said) else f'{own}:{port}'}"


def reference_page(document: Json, base: str) -> str:
    """Render the document, with commands for the server at `base`, such as http://localhost:8000.

    A `base` from a caller is escaped; that it is safe in a shell is for the caller to see to.
    """
    info = document["info"]
    operations = "".join(
        _operation(base, path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(_schema(name, one) for name, one in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} The same for programs: "
        f'<a href="{DOCUMENT}">openapi.json</a>.</p>{operations}<h1>Schemas</h1>{schemas}'
        "</body></html>"
    )


def _operation(base: str, path: str, method: str, operation: Json) -> str:
    name = operation["operationId"]
    answers = "".join(
        f"<tr><td>{status}</td><td>{escape(one['description'])}</td><td>{_links(one)}</td></tr>"
        for status, one in operation["responses"].items()
    )
    takes = operation.get("requestBody")
    return (
        f'<h2 id="{name}"><code>{method.upper()} {escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])}</p>"
        f"{_parameters(operation)}"
        f"{f'<p>Body: {_links(takes)}</p>' if takes else ''}"
        f"<table>{answers}</table><pre>{escape(_curl(base, path, method, name))}</pre>"
    )


def _parameters(operation: Json) -> str:
    rows = "".join(
        f"<tr><td><code>{one['name']}</code></td><td>{escape(one['description'])}</td>"
        f"<td>{type_words(one['schema'])}</td></tr>"
        for one in operation.get("parameters", ())
    )
    return f"<table>{rows}</table>" if rows else ""


def _curl(base: str, path: str, method: str, name: str) -> str:
    example = _EXAMPLES.get(name)
    url = base + path
    if method != "post":
        return f"curl {url}"
    if example is None:
        return f"curl {url} -X POST"
    body = json.dumps(example)
    return f"curl {url} -H 'Content-Type: application/json' \\\n  -d '{body}'"


def _links(part: Json) -> str:
    schemas = [one["schema"] for one in part.get("content", {}).values()]
    return ", ".join(type_words(one) for one in schemas)


def _schema(name: str, schema: Json) -> str:
    title = f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{_prose(schema)}</p>'
    if "properties" not in schema:
        return f"{title}<p>{type_words(schema)}</p>"
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{type_words(one)}</td>"
        f"<td>{'required' if field in required else ''}</td><td>{_prose(one)}</td></tr>"
        for field, one in schema["properties"].items()
    )
    return f"{title}<table>{rows}</table>"


def _prose(schema: Json) -> str:
    return escape(schema.get("description", ""))
