"""`/docs`: the OpenAPI document as one HTML page, without scripts or external assets."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.docs.html import HTML_HEADERS, html_page
from notifier.api.docs.openapi import Json
from notifier.api.docs.problem_page import PROBLEMS_PATH, problem_page
from notifier.api.docs.type_text import type_text
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.raw_response import RawResponse

REFERENCE_PATH: Final = "/docs"
OPENAPI_PATH: Final = "/docs/openapi.json"
KEY_VARIABLE: Final = "NOTIFIER_CLIENT__KEY"
"""The variable from which the commands take their key, too."""


class ReferenceRoutes:
    """Handlers of the pages and of the OpenAPI document."""

    def __init__(self, document: Json, address: PublicAddress) -> None:
        self._document = document
        self._address = address

    async def redirect(self, request: Request[Any, Any, Any]) -> ASGIApp:
        location = self._address.prefix(request.scope) + REFERENCE_PATH
        return RawResponse(307, b"", [(b"location", location.encode())])

    async def page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        html = reference_page(self._document, self._address.url(request.scope))
        return RawResponse(200, html.encode(), HTML_HEADERS)

    async def problems(self, request: Request[Any, Any, Any]) -> ASGIApp:
        html = problem_page(self._address.prefix(request.scope))
        return RawResponse(200, html.encode(), HTML_HEADERS)

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
    path = urlsplit(base).path
    return html_page(
        f"{info['title']} API",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} For programs: "
        f'<a href="{escape(path + OPENAPI_PATH)}">openapi.json</a>. '
        f'<a href="{escape(path + PROBLEMS_PATH)}">All problem types</a>.</p>'
        f"{operations}<h1>Schemas</h1>{schemas}",
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
        f"<p>{'Deprecated. ' if operation.get('deprecated') else ''}"
        f"{escape(operation['summary'])} {escape(operation.get('description', ''))}</p>"
        f"{_parameters(operation)}"
        f"{f'<p>Body: {_content_types(body)}</p>' if body else ''}"
        f"<table>{responses}</table><pre>{escape(_curl(base + path, method, operation))}</pre>"
    )


def _parameters(operation: Json) -> str:
    rows = "".join(
        f"<tr><td><code>{parameter['name']}</code></td>"
        f"<td>{escape(parameter['description'])}</td>"
        f"<td>{type_text(parameter['schema'])}</td></tr>"
        for parameter in operation.get("parameters", ())
    )
    return f"<table>{rows}</table>" if rows else ""


def _curl(url: str, method: str, operation: Json) -> str:
    body = operation.get("requestBody")
    # With data curl sends a POST.
    is_told = method == "get" or (method == "post" and body is not None)
    option = "" if is_told else f" -X {method.upper()}"
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if "security" in operation else ""
    if body is None:
        return f"curl {url}{option}{key}"
    if "application/json" not in body["content"]:
        kind = "-H 'Content-Type: application/pdf'"
        return f"curl {url}{key} {kind} --data-binary @invoice.pdf"
    example = json.dumps(body["content"]["application/json"]["example"])
    return f"curl {url}{option}{key} \\\n  -H 'Content-Type: application/json' -d '{example}'"


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
