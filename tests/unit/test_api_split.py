from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.api.http.problems import RequestRefused
from notifier.api.submission.batch_split import BatchSplitter
from notifier.domain.errors import InvalidNotification
from tests.unit.fakes_api import make_rules

SPLITTER = BatchSplitter(make_rules(max_batch=10))
MIB = 1024 * 1024


def batch(*items: bytes) -> bytes:
    return b'{ "notifications" : [ %s ] }' % b" , ".join(items)


def test_items_are_returned_unchanged() -> None:
    items = [b"1", b'"1"', b'{"a": [1, 2]}', b"[]", b'"\\u0041 \xc3\xa4"', b"1e400", b"1"]
    assert SPLITTER.split(batch(*items)) == items


@pytest.mark.parametrize("token", [b'"\\ud800"', b'"\\uDfFf"', b"NaN", b"-Infinity", b'"\xff"'])
def test_a_token_that_the_parser_rejects_affects_only_its_item(token: bytes) -> None:
    items = [b'"notifications"', b"1e1", token, b'"\\\\ud800 NaN"', b"[%s]" % token, b"1e1"]
    assert SPLITTER.split(batch(*items)) == items


def test_a_large_batch_with_a_rejected_token_is_refused_as_a_whole() -> None:
    with pytest.raises(RequestRefused) as caught:
        SPLITTER.split(batch(b'"\\ud800"', b'"%s"' % (b"a" * MIB)))
    assert caught.value.problem.type == "urn:notifier:problem:malformed-json"
    assert "lone surrogate" in caught.value.problem.detail


@pytest.mark.parametrize("count", [0, 11, 12, 1000])
def test_too_few_or_too_many_items_are_refused(count: int) -> None:
    with pytest.raises(InvalidNotification) as caught:
        SPLITTER.split(batch(*[b"{}"] * count))
    assert (caught.value.field, caught.value.expected) == ("notifications", "1 to 10 notifications")


def test_splitting_a_million_items_makes_no_million_objects() -> None:
    body = batch(b",".join([b"0"] * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidNotification):
            SPLITTER.split(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MIB


@pytest.mark.parametrize("depth", [2000, 50_000])
def test_a_batch_with_an_item_that_nests_too_deeply_is_refused_as_a_whole(depth: int) -> None:
    with pytest.raises(InvalidNotification) as caught:
        SPLITTER.split(batch(b"1", b"[" * depth + b"]" * depth))
    assert caught.value.field == "notifications"


def test_an_unknown_field_with_a_very_long_name_is_refused() -> None:
    with pytest.raises(InvalidNotification) as caught:
        SPLITTER.split(b'{"%s":1}' % (b"a" * MIB))
    assert caught.value.expected == "only notifications here"


@given(st.binary(max_size=200))
def test_any_bytes_are_split_or_refused(body: bytes) -> None:
    with pytest.raises((InvalidNotification, RequestRefused)):
        SPLITTER.split(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
)


@given(st.lists(JSON, min_size=1, max_size=10))
def test_splitting_returns_the_items_that_were_joined(values: list[object]) -> None:
    items = [json.dumps(value).encode() for value in values]
    assert SPLITTER.split(batch(*items)) == items
