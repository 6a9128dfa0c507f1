"""The client reads any answer, splits any batch, and writes instants that it can read."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.value_lists import separated
from notifier_client import InvalidSignature, Notification, NotifierError, WebhookVerifier
from notifier_client.calls import Calls
from notifier_client.decoding import Undecodable, decode
from notifier_client.documents import Accepted, Explanation, Page
from notifier_client.errors import error_of
from notifier_client.exchange import Answer, Pause, Steps
from notifier_client.filters import query_of
from notifier_client.instants import instant_text, parse_instant
from notifier_client.retrying import Policy
from notifier_client.submits import batches
from tests.client_steps import problem, row

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)
MEMBERS = st.dictionaries(
    st.sampled_from(
        [*problem("x", 1), *row(), "errors", "instance", "results", "items", "next_cursor"]
    ),
    JSON,
)
BODIES = st.binary(max_size=50) | (JSON | MEMBERS).map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "request-id", "idempotent-replayed"]), st.text(max_size=40)
)
ANSWERS = st.builds(Answer, st.integers(200, 599), HEADERS, BODIES)
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(ANSWERS)
def test_any_answer_is_a_result_or_an_error_of_the_client(answer: Answer) -> None:
    calls = Calls(Policy(deadline_s=1.0, clock=lambda: 0.0))
    every: list[Steps[Any]] = [
        calls.get("n1"),
        calls.page({}),
        calls.send_many([{"channel": "x"}], "K", 9),
    ]
    for steps in every:
        reply: Any = None
        pauses = 0
        try:
            while pauses < 2:
                step = steps.send(reply)
                reply = None if isinstance(step, Pause) else answer
                pauses += isinstance(step, Pause)
        except (StopIteration, NotifierError):
            pass
    assert str(error_of(answer, "K"))


@given(JSON | MEMBERS, st.sampled_from([Accepted, Explanation, Notification, Page]))
def test_any_document_is_decoded_or_undecodable(document: object, kind: type[object]) -> None:
    with suppress(Undecodable):
        assert isinstance(decode(kind, document), kind)


@given(st.lists(st.integers(0, 5 * 1024 * 1024), max_size=8), st.integers(1, 4))
def test_batches_keep_every_item_in_order_within_the_limits(sizes: list[int], size: int) -> None:
    items = [b"0" * length + str(number).encode() for number, length in enumerate(sizes)]
    found = list(batches(items, size))
    assert sum(length for length, _ in found) == len(items)
    assert all(1 <= length <= size for length, _ in found)
    assert all(len(body) <= 8 * 1024 * 1024 or length == 1 for length, body in found)
    heads = b",".join(body[len(b'{"notifications":[') : -len(b"]}")] for _, body in found)
    assert heads == b",".join(items)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS))  # noqa: DTZ001 the strategy adds the zone
def test_an_instant_is_read_as_it_is_written(instant: datetime) -> None:
    assert parse_instant(instant_text("at", instant)) == instant
    assert parse_instant(instant.astimezone(UTC).strftime("%4Y-%m-%dT%H:%M:%S.%fZ")) == instant


@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=5))
def test_the_api_reads_the_values_of_a_filter_as_they_are_written(values: list[str]) -> None:
    assert list(separated(query_of({"tag": values})["tag"])) == values


@given(st.binary(max_size=50), st.dictionaries(st.text(max_size=20), st.text(max_size=50)))
def test_any_call_without_the_signature_is_refused(body: bytes, headers: dict[str, str]) -> None:
    given_headers = {"webhook-id": "1", "webhook-timestamp": "0", **headers}
    verifier = WebhookVerifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now_s=lambda: 0.0)
    try:
        verifier.verify(body, given_headers)
    except InvalidSignature:
        return
    raise AssertionError(given_headers)
