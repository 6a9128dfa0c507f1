"""A tool reads the OpenAPI document and tests the API by it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings

from notifier.api.docs.openapi import openapi_document
from notifier.api.http.server import open_server
from notifier.api.routes.table import ROUTES
from notifier.domain.keys import KeyScope
from tests.memory_access import memory_auth
from tests.unit.fakes_api import MemoryStore, make_api, make_rules

RULES = make_rules(providers=["smtp"])
STORE = MemoryStore()
AUTH, KEY = memory_auth(*KeyScope)
HEADERS = {"Authorization": f"Bearer {KEY.text}"}


@contextmanager
def served() -> Iterator[str]:
    """Serves the API in a thread, since the tools block theirs; yields its URL."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ports: list[int] = []
    is_ready = threading.Event()

    async def serve() -> None:
        app = make_api(STORE, RULES, auth=AUTH)
        async with open_server(app, host="127.0.0.1", port=0, grace_s=1) as port:
            ports.append(port)
            is_ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    is_ready.wait()
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    with served() as url:
        yield url


SCHEMA: Any = schemathesis.openapi.from_dict(openapi_document(ROUTES, RULES))
ENDLESS = "GET /v1/inbox/{user}/events"
"""A stream, which test_api_inbox.py reads."""
OPERATIONS = {
    result.ok().label: result.ok()
    for result in SCHEMA.get_all_operations()
    if result.ok().label != ENDLESS
}


def submits(body: object) -> Iterator[dict[str, Any]]:
    """The body, if it is an object, its fallback, and the notifications of a batch or schedule."""
    if isinstance(body, dict):
        yield body
        inside = (body.get("notification"), body.get("fallback"))
        for item in (*body.get("notifications", ()), *inside):
            yield from submits(item)


def without_far_future(body: object) -> None:
    """Sends at once what should wait: a schema cannot say how many days ahead an instant may be."""
    for submit in submits(body):
        if "recipient" in submit and "ttl_s" in submit:
            submit.pop("expires_at", None)
        elif submit.get("expires_at"):
            submit["expires_at"] = "2021-01-31T08:00:00Z"
        if submit.get("send_at"):
            submit["send_at"] = "2020-01-31T08:00:00Z"


def with_the_default_tenant(case: Any) -> None:
    """Names the tenant that always exists, where one is named or has to be.

    No schema can say which exist, and that a deployment key names one.
    """
    is_schedule = case.path.startswith("/v1/schedules")
    is_needed = is_schedule or case.path.startswith(("/v1/suppressions", "/v1/templates"))
    for submit in submits(case.body):
        is_named = is_needed and "cron" not in submit
        is_named = is_named and "after_s" not in submit
        if is_named or "tenant" in submit:
            submit["tenant"] = "default"
    is_in_query = is_needed and not case.path.endswith("/versions")  # there the body has it
    is_in_query |= case.path.startswith(("/v1/inbox/", "/v1/webhooks"))
    if is_in_query or "tenant" in (case.query or {}):
        case.query = {**(case.query or {}), "tenant": "default"}


def without_expiry(body: object) -> None:
    """Makes keys that never expire: no schema can say that an instant is in the future."""
    if isinstance(body, dict) and body.get("expires_at"):
        body["expires_at"] = None


def with_a_known_time_zone(body: object) -> None:
    """A schema that names all time zones would be as long as the rest of the document."""
    for submit in submits(body):
        if submit.get("time_zone") is not None:
            submit["time_zone"] = "Europe/Berlin"


def without_blobs(body: object) -> None:
    """Leaves out files and whole mails: a schema cannot say which blobs exist."""
    for submit in submits(body):
        content = submit.get("content")
        if isinstance(content, dict):
            content.pop("attachments", None)
            if content.pop("mime", None):
                content["subject"] = "x"


def without_topic_of_a_fallback(body: object) -> None:
    """Leaves out the topic: no schema can say that its channel depends on that of the fallback."""
    for submit in submits(body):
        if submit.get("fallback"):
            submit.pop("topic", None)


def with_quiet_hours(body: object) -> None:
    """Lets quiet hours end at another time than they start: no schema can say that they differ."""
    if isinstance(body, dict) and "start" in body and body["start"] == body.get("end"):
        body["start"], body["end"] = "21:00", "08:00"


def with_one_idempotency_key(case: Any) -> None:
    """Leaves out the body's key if the header has one: no schema can say that both are equal."""
    if isinstance(case.body, dict) and "Idempotency-Key" in (case.headers or {}):
        case.body.pop("idempotency_key", None)
        if "filter" in case.body:  # nor which keys were used with another body
            del case.headers["Idempotency-Key"]


def without_unrelated_filters(query: dict[str, Any] | None) -> None:
    """Leaves out cursors, and filters that depend on others or on the key: no schema can say so."""
    for name in ("cursor", "reason", "provider", "code", "mode"):
        (query or {}).pop(name, None)


def with_from_before_to(query: dict[str, Any] | None) -> None:
    """Leaves out the end of a span: no schema can say that it is after its beginning."""
    (query or {}).pop("to", None)


def with_own_mode(body: object) -> None:
    """Leaves out the mode of a filter: no schema can say which the key has.

    Nor can it say that an erasure takes one recipient, and no other filter than its channels.
    """
    if isinstance(body, dict) and isinstance(body.get("filter"), dict):
        body["filter"].pop("mode", None)
        if body["kind"] == "erase":
            body["filter"] = {"recipient": "ada@example.com"}
            body.pop("rate_per_s", None)
        body["filter"] = body["filter"] or {
            "status": "failed" if body["kind"] == "retry" else "queued"
        }


def with_a_webhook(case: Any) -> None:
    """Calls a URL and names events that a webhook of a tenant may have: no schema can say which."""
    if not case.path.startswith("/v1/webhooks") or not isinstance(case.body, dict):
        return
    if "url" in case.body:
        case.body["url"] = "https://shop.example.com/hooks"
    if "events" in case.body:
        case.body["events"] = ["notification.*"]


def without_a_webhook_beside_others(body: object) -> None:
    """Leaves out the webhook of a filter: no schema can say that others may not stand beside it."""
    if isinstance(body, dict) and isinstance(body.get("filter"), dict):
        body["filter"].pop("webhook", None)
        body["filter"] = body["filter"] or {"tag": "sale"}


def with_known_senders(body: object) -> None:
    """Names a sender of each kind: no schema can say which texts are one."""
    if isinstance(body, dict) and body.get("senders"):
        body["senders"] = ["Shop <no-reply@shop.example>", "shop.example", "+15005550006"]


def without_template(body: object) -> None:
    """Takes texts in place of a template: no schema can say which templates there are."""
    for submit in submits(body):
        if submit.get("template") is not None:
            for name in ("template", "variables", "locale"):
                submit.pop(name, None)
            texts = {"subject": "Hello", "body": "World"}
            submit["content"] = {**(submit.get("content") or {}), **texts}


def with_compilable_template(body: object) -> None:
    """Makes a document of a template one that can be compiled: no schema can say how."""
    if isinstance(body, dict) and "locales" in body:
        texts = {"email": {"subject": "Order {{ id }}", "body": "{{ name }}"}}
        body |= {"default_locale": "en", "locales": {"en": texts}, "schema": None}


def with_schedule(body: object) -> None:
    """Makes the request of a schedule one that has instants: no schema can say what a cron is.

    Its notification has nothing that only a single submit has, and expires late enough.
    """
    if isinstance(body, dict) and "cron" in body:
        body["cron"] = "30 9 * * MON-FRI"
        for name in ("send_at", "expires_at", "idempotency_key", "ttl_s"):
            body["notification"].pop(name, None)


def with_columns(case: Any) -> None:
    """Makes a CSV file one of suppressions: no schema can say what its lines are."""
    if case.media_type == "text/csv":
        case.body = "channel,recipient\nemail,ada@example.com\n"


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_what_the_document_allows_is_accepted_and_answered_as_it_says(
    label: str, api_url: str
) -> None:
    @settings(max_examples=40)
    @given(OPERATIONS[label].as_strategy())
    def check(case: Any) -> None:
        without_far_future(case.body)
        with_a_known_time_zone(case.body)
        with_quiet_hours(case.body)
        without_blobs(case.body)
        without_topic_of_a_fallback(case.body)
        with_one_idempotency_key(case)
        without_unrelated_filters(case.query)
        with_from_before_to(case.query)
        without_expiry(case.body)
        without_a_webhook_beside_others(case.body)
        with_own_mode(case.body)
        with_a_webhook(case)
        with_known_senders(case.body)
        with_the_default_tenant(case)
        without_template(case.body)
        with_compilable_template(case.body)
        with_schedule(case.body)
        with_columns(case)
        case.call_and_validate(base_url=api_url, headers=HEADERS)

    check()
