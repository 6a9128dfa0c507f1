from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from notifier.api.docs.openapi import openapi_document
from notifier.api.docs.reference import reference_page
from notifier.api.docs.type_words import type_words
from notifier.api.settings import AddressKind, ApiSettings, ChannelRules
from tests.unit.fakes_api import MemoryStore, make_api

UNDESCRIBED = {"/", "/docs", "/docs/openapi.json"}


def references(part: object) -> set[str]:
    match part:
        case {"$ref": str(name)}:
            return {name}
        case dict():
            return set().union(*(references(one) for one in part.values()))
        case list():
            return set().union(*(references(one) for one in part))
        case _:
            return set()


def test_every_route_is_described_and_nothing_else() -> None:
    served = {
        (route.path_format, method.lower())
        for route in make_api(MemoryStore()).routes
        for method in getattr(route, "methods", ())
        if method not in {"OPTIONS", "HEAD"} and route.path_format not in UNDESCRIBED
    }
    paths: dict[str, Any] = openapi_document(ApiSettings())["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == served


def test_every_reference_leads_somewhere() -> None:
    document = openapi_document(ApiSettings())
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_the_document_tells_the_settings() -> None:
    settings = ApiSettings(
        channels={"chat": ChannelRules(address=AddressKind.TOKEN)}, retention=timedelta(days=10)
    )
    submit = openapi_document(settings)["components"]["schemas"]["Submit"]["properties"]
    assert submit["channel"]["enum"] == ["chat"]
    assert submit["ttl"]["anyOf"][0]["maximum"] == 9 * 86_400


def test_the_page_shows_every_operation_with_a_command_to_try() -> None:
    document = openapi_document(ApiSettings())
    page = reference_page(document, "http://notify.example:81")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert f'<h2 id="{operation["operationId"]}">' in page
        assert f"curl http://notify.example:81{path}" in page


def test_the_page_escapes_what_it_shows() -> None:
    document = openapi_document(ApiSettings())
    document["info"]["description"] = "<script>alert(1)</script>"
    assert "<script>" not in reference_page(document, "http://<script>")


def test_the_page_states_the_bounds() -> None:
    settings = ApiSettings(max_content_bytes=100_000, max_batch=77)
    page = reference_page(openapi_document(settings), "")
    for bound in ("200,000", "100,000", "16,384", "77 notifications", "8,388,608"):
        assert bound in page


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/queues/{queue}/pause", ["fax.high", "fax.medium", "fax.low"]),
        ("/v1/channels/{channel}/pause", ["fax"]),
        ("/v1/providers/{provider}/resume", ["telco"]),
    ],
)
def test_what_can_be_paused_is_named(path: str, names: list[str]) -> None:
    settings = ApiSettings(
        channels={"fax": ChannelRules(address=AddressKind.PHONE)}, providers=["telco"]
    )
    (parameter,) = openapi_document(settings)["paths"][path]["post"]["parameters"]
    assert (parameter["in"], parameter["required"]) == ("path", True)
    assert parameter["schema"] == {"enum": names}


def test_every_part_of_a_path_is_described_as_such() -> None:
    for path, methods in openapi_document(ApiSettings())["paths"].items():
        for operation in methods.values():
            parameters = operation.get("parameters", ())
            in_path = {one["name"] for one in parameters if one["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))


def test_the_body_of_a_pause_may_be_left_out() -> None:
    paths = openapi_document(ApiSettings())["paths"]
    assert not paths["/v1/queues/{queue}/pause"]["post"]["requestBody"]["required"]
    assert paths["/v1/notifications"]["post"]["requestBody"]["required"]


def test_the_page_shows_how_to_pause_and_resume() -> None:
    page = reference_page(openapi_document(ApiSettings()), "http://h")
    assert "curl http://h/v1/queues/{queue}/resume -X POST" in page
    assert "-d &#x27;{&quot;reason&quot;: &quot;maintenance&quot;, &quot;for&quot;: 600}" in page


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "format": "date-time"}, "string, date-time"),
        (
            {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
            "integer, at least 1, at most 200, default 50",
        ),
        ({"anyOf": [{"type": "number"}, {"type": "null"}], "default": None}, "number or null"),
        ({"type": ["object", "null"]}, "object or null"),
        ({"enum": ["a", "<b>"]}, "one of a, &lt;b&gt;"),
        (
            {"type": "array", "items": {"$ref": "#/components/schemas/Queue"}},
            'array of <a href="#Queue">Queue</a>',
        ),
        ({}, "anything"),
    ],
)
def test_a_type_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_words(schema) == words


def test_the_page_shows_no_raw_schema() -> None:
    page = reference_page(openapi_document(ApiSettings()), "")
    assert "&quot;type&quot;" not in page
