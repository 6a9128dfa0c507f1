from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from jsonschema_rs import Draft202012Validator

from notifier.api.docs.openapi import openapi_document
from notifier.api.docs.reference import reference_page
from notifier.api.docs.type_text import type_text
from notifier.api.routes.table import ROUTES
from notifier.api.rules import AddressKind, ApiRules, ChannelRules
from notifier.domain.webhooks import new_secret, signatures
from tests.unit.fakes_api import DEFAULT_RULES, MemoryStore, make_api, make_rules

UNDOCUMENTED = {"/", "/docs", "/docs/openapi.json", "/docs/problems", "/v1/unsubscribe/{token}"}


def document(rules: ApiRules = DEFAULT_RULES) -> dict[str, Any]:
    return openapi_document(ROUTES, rules)


def references(part: object) -> set[str]:
    match part:
        case {"$ref": str(name)}:
            return {name}
        case dict():
            return set().union(*(references(value) for value in part.values()))
        case list():
            return set().union(*(references(value) for value in part))
        case _:
            return set()


def test_the_document_holds_exactly_the_served_routes() -> None:
    served = {
        (route.path_format, method.lower())
        for route in make_api(MemoryStore()).routes
        for method in getattr(route, "methods", ())
        if method not in {"OPTIONS", "HEAD"} and route.path_format not in UNDOCUMENTED
    }
    paths: dict[str, Any] = document()["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == served


def test_every_reference_names_a_schema() -> None:
    described = document()
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described) <= known


def test_the_document_shows_the_rules() -> None:
    rules = make_rules(
        channels={"chat": ChannelRules(address=AddressKind.TOKEN)}, retention=timedelta(days=10)
    )
    submit = document(rules)["components"]["schemas"]["Submit"]["properties"]
    assert submit["channel"]["enum"] == ["chat"]
    assert submit["ttl_s"]["anyOf"][0]["maximum"] == 9 * 86_400


def test_the_page_shows_every_operation_with_a_command_to_try() -> None:
    described = document()
    page = reference_page(described, "http://notify.example:81")
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert f'<h2 id="{operation["operationId"]}">' in page
        assert f"curl http://notify.example:81{path}" in page


def test_the_page_escapes_text() -> None:
    described = document()
    described["info"]["description"] = "<script>alert(1)</script>"
    assert "<script>" not in reference_page(described, "http://<script>")


def test_the_page_shows_the_size_limits() -> None:
    rules = make_rules(max_content_bytes=100_000, max_batch=77)
    page = reference_page(document(rules), "")
    for limit in ("200,000", "100,000", "16,384", "77 notifications", "8,388,608"):
        assert limit in page


def test_the_document_lists_what_can_be_paused() -> None:
    kind, name = document()["paths"]["/v1/pauses/{kind}/{name}"]["put"]["parameters"]
    assert (kind["in"], kind["required"], name["in"]) == ("path", True, "path")
    assert kind["schema"] == {
        "type": "string",
        "enum": ["queue", "channel", "provider", "tag", "tenant"],
    }


def test_a_filter_takes_several_values_with_commas_between_them() -> None:
    parameters = document()["paths"]["/v1/notifications"]["get"]["parameters"]
    channel = next(each for each in parameters if each["name"] == "channel")
    assert (channel["style"], channel["explode"]) == ("form", False)
    assert channel["schema"]["items"]["enum"] == ["email", "sms", "push"]


def test_every_operation_has_a_tag_and_every_body_an_example() -> None:
    described = document()
    tags = {tag["name"] for tag in described["tags"]}
    for methods in described["paths"].values():
        for operation in methods.values():
            assert tags.issuperset(operation["tags"])
            for media in operation.get("requestBody", {}).get("content", {}).values():
                schema = {**media["schema"], "components": described["components"]}
                assert Draft202012Validator(schema).is_valid(media["example"])


def test_only_the_failures_are_deprecated() -> None:
    paths = document()["paths"].values()
    operations = [operation for methods in paths for operation in methods.values()]
    deprecated = [each["operationId"] for each in operations if each.get("deprecated")]
    assert deprecated == ["listFailures"]


def test_every_path_parameter_is_documented() -> None:
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            parameters = operation.get("parameters", ())
            in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))


def test_the_body_of_a_pause_is_optional() -> None:
    paths = document()["paths"]
    assert not paths["/v1/pauses/{kind}/{name}"]["put"]["requestBody"]["required"]
    assert paths["/v1/notifications"]["post"]["requestBody"]["required"]


def test_the_page_shows_how_to_pause_and_resume() -> None:
    page = reference_page(document(), "http://h")
    assert "curl http://h/v1/pauses/{kind}/{name} -X DELETE" in page
    assert "curl http://h/v1/pauses/{kind}/{name} -X PUT -H" in page
    assert "-d &#x27;{&quot;for_s&quot;: 600, &quot;note&quot;: &quot;maintenance&quot;}" in page


@pytest.mark.parametrize(
    ("schema", "text"),
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
def test_a_type_is_described_as_text(schema: dict[str, Any], text: str) -> None:
    assert type_text(schema) == text


def test_the_page_shows_no_raw_schema() -> None:
    page = reference_page(document(), "")
    assert "&quot;type&quot;" not in page


def test_the_document_describes_the_calls_of_webhooks() -> None:
    described = document()
    call = described["webhooks"]["event"]["post"]
    assert call["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Event"
    }
    headers = {each["name"]: each["schema"] for each in call["parameters"]}
    secrets = [new_secret(), new_secret()]
    event = uuid4()
    sent = {
        "webhook-id": str(event),
        "webhook-timestamp": "1764354046",
        "webhook-signature": signatures(secrets, str(event), 1764354046, b"{}"),
    }
    assert headers.keys() == sent.keys()
    for name, value in sent.items():
        assert Draft202012Validator(headers[name]).is_valid(value)
