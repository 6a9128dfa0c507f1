"""`/docs`: the OpenAPI document as one page of HTML, without scripts and without outside assets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from typing import Final

from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from notifier.api.answer import Answer, read_route
from notifier.api.openapi import Json, openapi_document
from notifier.api.settings import ApiSettings

DOCS: Final = "/docs"
DOCUMENT: Final = "/docs/openapi.json"
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1a1a1a;background:#fff}
pre{background:#f3f3f3;padding:.8rem;overflow-x:auto;border-radius:4px}
code,pre{font-family:ui-monospace,monospace;font-size:.85rem}
h2{border-top:1px solid #ccc;padding-top:1.5rem;overflow-wrap:anywhere}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1.2rem .15rem 0;
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
_EXAMPLE: Final[Json] = {
    "channel": "email",
    "priority": "high",
    "recipient": "ada@example.com",
    "content": {"subject": "Your code", "body": "Your code is 123456."},
}
_EXAMPLES: Final[dict[str, Json]] = {
    "submit": _EXAMPLE,
    "submitBatch": {"notifications": [_EXAMPLE]},
}


def reference_handlers(settings: ApiSettings) -> Sequence[HTTPRouteHandler]:
    """Make the handlers of the reference. Both answers are made once."""
    document = openapi_document(settings)
    page_answer = Answer(200, reference_page(document).encode(), _HTML_HEADERS)
    document_answer = Answer(200, json.dumps(document).encode())

    @read_route("/")
    async def root() -> ASGIApp:
        return Answer(307, b"", [(b"location", DOCS.encode())])

    @read_route(DOCS)
    async def page() -> ASGIApp:
        return page_answer

    @read_route(DOCUMENT)
    async def openapi() -> ASGIApp:
        return document_answer

    return [root, page, openapi]


def reference_page(document: Json) -> str:
    """Render the document."""
    info = document["info"]
    operations = "".join(
        _operation(path, method, operation)
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


def _operation(path: str, method: str, operation: Json) -> str:
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
        f"<table>{answers}</table><pre>{escape(_curl(path, method, name))}</pre>"
    )


def _parameters(operation: Json) -> str:
    rows = "".join(
        f"<tr><td><code>{one['name']}</code></td><td>{escape(one['description'])}</td>"
        f"<td><code>{escape(_brief(one['schema']))}</code></td></tr>"
        for one in operation.get("parameters", ())
    )
    return f"<table>{rows}</table>" if rows else ""


def _curl(path: str, method: str, name: str) -> str:
    example = _EXAMPLES.get(name)
    url = f"http://127.0.0.1:8000{path}"
    if example is None or method != "post":
        return f"curl {url}"
    body = json.dumps(example)
    return f"curl {url} -H 'Content-Type: application/json' \\\n  -d '{body}'"


def _links(part: Json) -> str:
    names = (_name(one["schema"]) for one in part.get("content", {}).values())
    return ", ".join(f'<a href="#{name}">{name}</a>' for name in names if name)


def _name(schema: Json) -> str:
    reference: str = schema.get("$ref") or schema.get("items", {}).get("$ref", "")
    return reference.rpartition("/")[2]


def _brief(schema: Json) -> str:
    return _name(schema) or json.dumps(schema)


def _schema(name: str, schema: Json) -> str:
    text = escape(json.dumps(schema, indent=2))
    return f'<h3 id="{name}">{name}</h3><pre>{text}</pre>'
