"""Idempotency keys at the edge: which requests have which key, and which bodies are the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.api.submission.idempotency import canonical_json
from notifier.delivery.keyed_batch import KeyedBatch
from notifier.domain.errors import IdempotencyKeyInFlight, StoreRejected
from notifier.domain.idempotency import digest, key_digest
from notifier.domain.notification import NewNotification
from notifier.ports.acceptor import Reply
from notifier.ports.store import KeyOwner
from tests.unit.fakes_api import MemoryStore, make_api, open_client, submit_body

SUBMIT = "/v1/notifications"
BATCH = "/v1/notifications/batch"
LONGEST = "k" * 255


class KeyedStore(MemoryStore):
    """Remembers keys as the real store does."""

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | StoreRejected]:
        batch = KeyedBatch(items)
        known = dict(self.owners)
        new = [item for item in batch.written if not item.key or item.key.digest not in known]
        await super().submit(new)
        for item in new:
            if item.key:
                self.owners[item.key.digest] = KeyOwner(item.id, item.key.body, item.status)
        return batch.replies(known)


@pytest.fixture
def store() -> KeyedStore:
    return KeyedStore()


@pytest.fixture
async def client(store: KeyedStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store)) as client:
        yield client


class Answer:
    """The parts of a response that the tests look at."""

    def __init__(self, response: aiohttp.ClientResponse, body: Any) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body
        self.is_replay = response.headers.get("Idempotent-Replayed") == "true"

    @property
    def problem(self) -> str:
        return str(self.body["type"]).removeprefix("urn:notifier:problem:")


async def post(
    client: aiohttp.ClientSession, path: str, body: object, *keys: str, **headers: str
) -> Answer:
    pairs = [("Idempotency-Key", key) for key in keys] + list(headers.items())
    async with client.post(path, json=body, headers=pairs) as response:
        return Answer(response, await response.json(content_type=None))


SAME = [
    ('{"a":1,"b":[1,{"c":null}]}', '{ "b" : [1.0, {"c": null}],\n "a": 1e0 }'),
    ('{"a":"é/\\u0041"}', '{"a":"\\u00e9\\/A"}'),
    ('{"a":1}', '{"idempotency_key":"k","a":1}'),
    ('{"a":-0.0}', '{"a":0}'),
    ('{"a":1.50}', '{"a":15e-1}'),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_spellings_of_a_body_are_the_same(one: str, other: str) -> None:
    assert canonical_json(one.encode()) == canonical_json(other.encode())


OTHER = [
    ('{"a":1}', '{"a":2}'),
    ('{"a":1}', '{"a":"1"}'),
    ('{"a":1}', '{"a":true}'),
    ('{"a":[1,2]}', '{"a":[2,1]}'),
    ('{"a":null}', "{}"),
    ('{"a":{"idempotency_key":"k"}}', '{"a":{}}'),
    ('{"a":9007199254740993}', '{"a":9007199254740992}'),
    ('{"a":"b"}', '{"a":"b "}'),
]


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_values_are_another_body(one: str, other: str) -> None:
    assert canonical_json(one.encode()) != canonical_json(other.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), JSON))
def test_the_canonical_form_does_not_depend_on_order_or_spelling(document: dict[str, Any]) -> None:
    reverse = dict(reversed(document.items()))
    plain = canonical_json(json.dumps(document).encode())
    assert canonical_json(json.dumps(reverse, indent=1, ensure_ascii=False).encode()) == plain
    assert canonical_json(plain) == plain


def test_the_same_key_of_another_tenant_or_mode_is_another_key() -> None:
    keys = {key_digest(*scope, "k") for scope in [("", "live"), ("shop", "live"), ("", "test")]}
    assert len(keys) == 3
    assert digest(b"a") != digest(b"b")


async def test_a_repeat_gets_the_same_answer_and_says_so(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    first = await post(client, SUBMIT, submit_body(), "order-1")
    repeat = await post(client, SUBMIT, dict(reversed(submit_body().items())), "order-1")
    assert (first.status, first.is_replay) == (202, False)
    assert (repeat.status, repeat.is_replay) == (202, True)
    assert repeat.body == first.body
    assert repeat.headers["Location"] == first.headers["Location"]
    assert len(store.new) == 1


async def test_the_field_is_the_same_key_as_the_header(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    first = await post(client, SUBMIT, submit_body(), LONGEST)
    in_field = await post(client, SUBMIT, submit_body(idempotency_key=LONGEST))
    in_both = await post(client, SUBMIT, submit_body(idempotency_key=LONGEST), LONGEST)
    assert in_field.body == in_both.body == first.body
    assert (in_field.is_replay, in_both.is_replay) == (True, True)
    assert len(store.new) == 1


async def test_another_body_with_the_key_is_refused(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    await post(client, SUBMIT, submit_body(), "order-1")
    other = await post(client, SUBMIT, submit_body(priority="low"), "order-1")
    assert (other.status, other.problem) == (422, "idempotency-mismatch")
    assert len(store.new) == 1


async def test_a_refused_submit_leaves_its_key_free(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    refused = await post(client, SUBMIT, submit_body(recipient="nobody"), "order-1")
    assert refused.status == 400
    corrected = await post(client, SUBMIT, submit_body(), "order-1")
    assert (corrected.status, corrected.is_replay) == (202, False)


async def test_a_key_in_flight_is_409_with_a_time_to_repeat(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    store.error = IdempotencyKeyInFlight()
    for path, body in ((SUBMIT, submit_body()), (BATCH, {"notifications": [submit_body()]})):
        answer = await post(client, path, body, "order-1")
        assert (answer.status, answer.problem) == (409, "idempotency-pending")
        assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb", "clé"])
async def test_what_is_no_key_is_refused(
    client: aiohttp.ClientSession, store: KeyedStore, key: str
) -> None:
    in_header = await post(client, SUBMIT, submit_body(), key)
    in_field = await post(client, SUBMIT, submit_body(idempotency_key=key))
    for answer, field in ((in_header, "Idempotency-Key"), (in_field, "idempotency_key")):
        assert (answer.status, answer.problem) == (400, "invalid-field")
        assert [error["field"] for error in answer.body["errors"]] == [field]
    assert not store.new


async def test_two_different_keys_are_refused(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    two_headers = await post(client, SUBMIT, submit_body(), "a", "b")
    both = await post(client, SUBMIT, submit_body(idempotency_key="a"), "b")
    for answer, field in ((two_headers, "Idempotency-Key"), (both, "idempotency_key")):
        assert (answer.status, answer.problem) == (400, "invalid-field")
        assert [error["field"] for error in answer.body["errors"]] == [field]
    assert not store.new


async def test_a_key_is_ignored_where_a_repeat_does_no_more_and_refused_where_it_would(
    client: aiohttp.ClientSession,
) -> None:
    suppression = {"channel": "email", "recipient": "ada@example.com"}
    statuses = [
        (await post(client, path, body, "order-1")).status
        for path, body in (
            ("/v1/suppressions", suppression),
            ("/v1/suppressions", suppression),
            (f"{SUBMIT}/preview", submit_body()),
        )
    ]
    assert statuses == [201, 200, 200]
    for path in ("/v1/keys", "/v1/templates/order/versions"):
        refused = await post(client, path, {}, "order-1")
        assert (refused.status, refused.problem) == (400, "unsupported-header")


async def test_a_wrong_key_is_one_of_all_wrong_fields(client: aiohttp.ClientSession) -> None:
    answer = await post(client, SUBMIT, submit_body(idempotency_key="é", max_tries=0))
    assert [error["field"] for error in answer.body["errors"]] == ["max_tries", "idempotency_key"]


async def test_each_item_of_a_batch_has_a_key_of_its_own(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    items = [submit_body(), submit_body(), submit_body(idempotency_key="own")]
    first = await post(client, BATCH, {"notifications": items}, "K")
    repeat = await post(client, BATCH, {"notifications": items}, "K")
    assert (first.is_replay, repeat.is_replay) == (False, True)
    assert repeat.body == first.body
    assert len(store.new) == 3
    ids = [result["id"] for result in first.body["results"]]
    for key, id_ in zip(("K#0", "K#1", "own"), ids, strict=True):
        single = await post(client, SUBMIT, submit_body(), key)
        assert (single.body["id"], single.is_replay) == (id_, True)


async def test_a_batch_that_stores_something_is_no_replay(client: aiohttp.ClientSession) -> None:
    await post(client, BATCH, {"notifications": [submit_body()]}, "K")
    more = await post(client, BATCH, {"notifications": [submit_body(), submit_body()]}, "K")
    assert (more.status, more.is_replay) == (202, False)


async def test_an_item_with_another_body_is_refused_alone(client: aiohttp.ClientSession) -> None:
    await post(client, BATCH, {"notifications": [submit_body(), submit_body()]}, "K")
    changed = [submit_body(), submit_body(priority="low")]
    answer = await post(client, BATCH, {"notifications": changed}, "K")
    assert (answer.status, answer.is_replay) == (202, True)
    assert answer.body["results"][1]["problem"]["status"] == 422
    twins = [submit_body(idempotency_key="t"), submit_body(idempotency_key="t")]
    answer = await post(client, BATCH, {"notifications": twins})
    assert answer.body["results"][0] == answer.body["results"][1]


async def test_the_templates_of_a_replayed_batch_are_read_at_once(
    client: aiohttp.ClientSession, store: KeyedStore
) -> None:
    submit = submit_body(template="order")
    del submit["content"]
    items = {"notifications": [submit, submit, submit_body()]}
    answers = []
    for text in ("first", "second"):
        parts = {"email": {"subject": "S", "body": text}}
        document = {"default_locale": "en", "locales": {"en": parts}}
        saved = await post(client, "/v1/templates/order/versions", document)
        assert saved.status == 201
        answers.append(await post(client, BATCH, items, "K"))
    assert answers[1].is_replay
    for answer in answers:
        templates = [result.get("template") for result in answer.body["results"]]
        assert templates == ["order@1", "order@1", None]
    assert store.template_questions == 1
