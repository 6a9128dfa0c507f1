from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.api.http.problems import Refusal
from notifier.api.settings import ApiSettings
from notifier.api.submission.batch_split import Splitter
from notifier.domain.errors import InvalidNotification

SPLITTER = Splitter(ApiSettings(max_batch=10))
MIB = 1024 * 1024


def batch(*items: bytes) -> bytes:
    return b'{ "notifications" : [ %s ] }' % b" , ".join(items)


def test_items_come_out_as_they_went_in() -> None:
    items = [b"1", b'"1"', b'{"a": [1, 2]}', b"[]", b'"\\u0041 \xc3\xa4"', b"1e400", b"1"]
    assert SPLITTER.split(batch(*items)) == items


@pytest.mark.parametrize("stop", [b'"\\ud800"', b'"\\uDfFf"', b"NaN", b"-Infinity", b'"\xff"'])
def test_what_stops_the_parser_is_left_to_its_item(stop: bytes) -> None:
    items = [b'"notifications"', b"1e1", stop, b'"\\\\ud800 NaN"', b"[%s]" % stop, b"1e1"]
    assert SPLITTER.split(batch(*items)) == items


def test_what_stops_the_parser_in_a_large_batch_is_the_batch_s_problem() -> None:
    with pytest.raises(Refusal) as caught:
        SPLITTER.split(batch(b'"\\ud800"', b'"%s"' % (b"a" * MIB)))
    assert caught.value.problem.type == "urn:notifier:problem:malformed-json"
    assert "lone surrogate" in caught.value.problem.detail


@pytest.mark.parametrize("count", [0, 11, 12, 1000])
def test_too_few_or_too_many_items_are_refused(count: int) -> None:
    with pytest.raises(InvalidNotification) as caught:
        SPLITTER.split(batch(*[b"{}"] * count))
    assert (caught.value.field, caught.value.expected) == ("notifications", "1 to 10 notifications")


def test_of_a_million_items_no_million_objects_are_made() -> None:
    body = batch(b",".join([b"0"] * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidNotification):
            SPLITTER.split(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MIB


@pytest.mark.parametrize("depth", [2000, 50_000])
def test_an_item_that_nests_without_end_is_the_batch_s_problem(depth: int) -> None:
    with pytest.raises(InvalidNotification) as caught:
        SPLITTER.split(batch(b"1", b"[" * depth + b"]" * depth))
    assert caught.value.field == "notifications"


def test_a_name_of_any_length_is_refused() -> None:
    with pytest.raises(InvalidNotification) as caught:
        SPLITTER.split(b'{"%s":1}' % (b"a" * MIB))
    assert caught.value.expected == "only notifications here"


@given(st.binary(max_size=200))
def test_any_bytes_are_split_or_refused(body: bytes) -> None:
    with pytest.raises((InvalidNotification, Refusal)):
        SPLITTER.split(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
)


@given(st.lists(JSON, min_size=1, max_size=10))
def test_any_items_are_split_as_they_were_joined(values: list[object]) -> None:
    items = [json.dumps(value).encode() for value in values]
    assert SPLITTER.split(batch(*items)) == items
