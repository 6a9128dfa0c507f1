from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.api.submission.validation import SubmitValidator
from notifier.domain.text_segments import BASIC, EXTENSION, count_segments
from tests.unit.fakes_api import (
    DEFAULT_RULES,
    MemoryStore,
    make_api,
    open_client,
    submit_body,
    validated,
)

SMS = {"channel": "sms", "recipient": "+15005550006"}


def test_the_alphabet_has_the_characters_of_the_standard() -> None:
    assert len(set(BASIC)) == len(BASIC) == 127  # 128 septets, one of which is the escape
    assert len(set(EXTENSION)) == len(EXTENSION) == 10
    assert not set(BASIC) & set(EXTENSION)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 1),
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("x" * 306, 2),
        ("x" * 307, 3),
        (BASIC, 1),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("€" * 152, 2),  # 76 in a segment: the escape of the 77th does not end it
        ("€" * 153, 3),
        ("x" * 152 + "€" + "x" * 152, 3),
        ("ñ" * 160, 1),
        ("ç" + "x" * 69, 1),  # the alphabet has only the capital letter
        ("`" + "x" * 70, 2),
        ("愛" * 134, 2),
        ("愛" * 135, 3),
        ("🎉" * 35, 1),
        ("🎉" * 36, 2),
        ("🎉" * 66, 2),  # 33 in a segment of 67 units
        ("🎉" * 67, 3),
    ],
    ids=ascii,
)
def test_a_text_has_the_segments_of_its_alphabet(text: str, segments: int) -> None:
    assert count_segments(text) == segments


@given(st.text(st.sampled_from(BASIC + EXTENSION), max_size=1000))
@example("x" * 152 + "{}" * 200)
def test_segments_of_the_gsm_alphabet_are_filled_one_after_the_other(text: str) -> None:
    sizes = [2 if character in EXTENSION else 1 for character in text]
    filled, parts = 0, 1
    for size in sizes:
        if filled + size > 153:
            filled, parts = 0, parts + 1
        filled += size
    assert count_segments(text) == (1 if sum(sizes) <= 160 else parts)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=500))
def test_other_texts_are_counted_in_units_of_utf_16(text: str) -> None:
    text = f"愛{text}"
    units = len(text.encode("utf-16-be")) // 2
    segments = count_segments(text)
    assert segments == 1 if units <= 70 else units / 67 <= segments <= units / 66 + 1


def test_only_a_text_message_has_segments() -> None:
    def validate(**changes: object) -> int | None:
        body = json.dumps(submit_body(**changes)).encode()
        return validated(SubmitValidator(DEFAULT_RULES), body).segments

    assert validate() is None
    assert validate(**SMS, content={"body": "x" * 161}) == 2


async def test_the_answer_to_a_text_message_has_its_segments() -> None:
    async with open_client(make_api(MemoryStore())) as client:
        body = submit_body(**SMS, content={"body": "é" * 161})
        async with client.post("/v1/notifications", json=body) as response:
            assert msgspec.json.decode(await response.read())["segments"] == 2
        async with client.post("/v1/notifications", json=submit_body()) as response:
            assert "segments" not in msgspec.json.decode(await response.read())
