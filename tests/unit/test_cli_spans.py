from __future__ import annotations

import pytest

from notifier.cli.spans import read_span, span_words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("0.25", 0.25),
        ("90s", 90.0),
        ("1.5s", 1.5),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("1d2h3m4s", 93_784.0),
        ("30d", 2_592_000.0),
    ],
)
def test_a_span_is_read_in_seconds(text: str, seconds: float) -> None:
    assert read_span(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "1h30", "30m1h", "1 h", "soon", "s", "٣s", "inf", "9" * 400 + "s"]
)
def test_an_invalid_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a span such as 90s, 15m or 1h30m"):
        read_span(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "0.25s"),
        (9.9999, "10s"),
        (60.0, "1m"),
        (5400.0, "1h30m"),
        (5399.6, "1h30m"),
        (93_784.0, "1d2h3m4s"),
        (2_592_000.0, "30d"),
    ],
)
def test_seconds_are_formatted_as_a_span(seconds: float, words: str) -> None:
    assert span_words(seconds) == words
