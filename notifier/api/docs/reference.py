"""`/docs`: the OpenAPI document as one HTML page, without scripts or external assets."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.docs.openapi import Json
from notifier.api.docs.type_text import type_text
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.raw_response import RawResponse
from notifier.domain.controls import ScopeKind

REFERENCE_PATH: Final = "/docs"
OPENAPI_PATH: Final = "/docs/openapi.json"
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
_SUBMIT_EXAMPLE: Final[Json] = {
    "channel": "email",
    "priority": "high",
    "recipient": "ada@example.com",
    "content": {"subject": "Your code", "body": "Your code is 123456."},
}
_EXAMPLES: Final[dict[str, Json]] = {
    "submit": _SUBMIT_EXAMPLE,
    "submitBatch": {"notifications": [_SUBMIT_EXAMPLE]},
    **{f"pause{kind.capitalize()}": {"reason": "maintenance", "for": 600} for kind in ScopeKind},
}
"""Request bodies by operation id."""


class ReferenceRoutes:
    """Handlers of the reference page and of the OpenAPI document."""

    def __init__(self, document: Json, address: PublicAddress) -> None:
        self._document = document
        self._address = address

    async def redirect(self, request: Request[Any, Any, Any]) -> ASGIApp:
        location = self._address.prefix(request.scope) + REFERENCE_PATH
        return RawResponse(307, b"", [(b"location", location.encode())])

    async def page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        html = reference_page(self._document, self._address.url(request.scope))
        return RawResponse(200, html.encode(), _HTML_HEADERS)

    async def document(self, request: Request[Any, Any, Any]) -> ASGIApp:
        servers = [{"url": self._address.url(request.scope)}]
        return RawResponse(200, json.dumps({**self._document, "servers": servers}).encode())


def reference_page(document: Json, base: str) -> str:
    """Renders the document, with links and commands for `base`, such as http://localhost:8000.

    `base` is escaped for HTML. The caller must ensure that it is safe in a shell.
    """
    info = document["info"]
    operations = "".join(
        _operation(base, path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        _schema(name, schema) for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} For programs: "
        f'<a href="{escape(urlsplit(base).path + OPENAPI_PATH)}">openapi.json</a>.</p>'
        f"{operations}<h1>Schemas</h1>{schemas}"
        "</body></html>"
    )


def _operation(base: str, path: str, method: str, operation: Json) -> str:
    operation_id = operation["operationId"]
    responses = "".join(
        f"<tr><td>{status}</td><td>{escape(response['description'])}</td>"
        f"<td>{_content_types(response)}</td></tr>"
        for status, response in operation["responses"].items()
    )
    body = operation.get("requestBody")
    return (
        f'<h2 id="{operation_id}"><code>{method.upper()} {escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])}</p>"
        f"{_parameters(operation)}"
        f"{f'<p>Body: {_content_types(body)}</p>' if body else ''}"
        f"<table>{responses}</table><pre>{escape(_curl(base, path, method, operation_id))}</pre>"
    )


def _parameters(operation: Json) -> str:
    rows = "".join(
        f"<tr><td><code>{parameter['name']}</code></td>"
        f"<td>{escape(parameter['description'])}</td>"
        f"<td>{type_text(parameter['schema'])}</td></tr>"
        for parameter in operation.get("parameters", ())
    )
    return f"<table>{rows}</table>" if rows else ""


def _curl(base: str, path: str, method: str, operation_id: str) -> str:
    example = _EXAMPLES.get(operation_id)
    url = base + path
    if method != "post":
        return f"curl {url}"
    if example is None:
        return f"curl {url} -X POST"
    body = json.dumps(example)
    return f"curl {url} -H 'Content-Type: application/json' \\\n  -d '{body}'"


def _content_types(part: Json) -> str:
    schemas = [media["schema"] for media in part.get("content", {}).values()]
    return ", ".join(type_text(schema) for schema in schemas)


def _schema(name: str, schema: Json) -> str:
    heading = f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{_description(schema)}</p>'
    if "properties" not in schema:
        return f"{heading}<p>{type_text(schema)}</p>"
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{type_text(field_schema)}</td>"
        f"<td>{'required' if field in required else ''}</td>"
        f"<td>{_description(field_schema)}</td></tr>"
        for field, field_schema in schema["properties"].items()
    )
    return f"{heading}<table>{rows}</table>"


def _description(schema: Json) -> str:
    return escape(schema.get("description", ""))
