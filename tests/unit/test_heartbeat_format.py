"""Heartbeat figures are read by other versions: the format that commit 37b0215 wrote is kept."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from notifier.adapters.postgres.heartbeat import decode_figures, encode_figures
from notifier.domain.breaker import ProviderFigures
from notifier.domain.features import ALL_FEATURES
from notifier.ports.heartbeat import Figures, QueueFigures
from tests.builders import EMAIL_HIGH

PREVIOUS_ROW = (
    '{"queues":{"email.high":{"consumers":3,"busy":2,"held":5,"done":1000,"done_per_s":12.5,'
    '"service_s":0.25,"limited_by":"rate","held_since":1800000000.25,"mark":1800000000.5,'
    '"drained_s":7.5}},"providers":{"smtp":{"calls":20,"failures":3,"streak":1,"streak_s":0.5,'
    '"answered_s":2.0,"credentials":true}}}'
)
"""A row as the previous version wrote it."""
FIGURES = Figures(
    queues={
        EMAIL_HIGH: QueueFigures(
            consumers=3,
            busy=2,
            held=5,
            done=1000,
            done_per_s=12.5,
            service_s=0.25,
            limited_by="rate",
            held_since=1_800_000_000.25,
            watermark=1_800_000_000.5,
            drained_s=7.5,
        )
    },
    providers={
        "smtp": ProviderFigures(
            calls=20, failures=3, streak=1, streak_s=0.5, answered_s=2.0, credentials=True
        )
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousQueueFigures:
    """QueueFigures of the previous version: every field is required."""

    consumers: int
    busy: int
    held: int
    done: int
    done_per_s: float
    service_s: float
    limited_by: str
    held_since: float | None
    mark: float | None
    drained_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousProviderFigures:
    """ProviderFigures of the previous version."""

    calls: int
    failures: int
    streak: int
    streak_s: float
    answered_s: float | None
    credentials: bool = False


class PreviousRow(msgspec.Struct):
    """What the previous version decodes a row into."""

    queues: dict[str, PreviousQueueFigures] = {}
    providers: dict[str, PreviousProviderFigures] = {}


def test_a_row_of_the_previous_version_is_decoded() -> None:
    assert decode_figures(PREVIOUS_ROW) == FIGURES


def test_the_previous_version_decodes_what_this_version_writes() -> None:
    row = msgspec.json.decode(encode_figures(FIGURES), type=PreviousRow)
    assert row.queues["email.high"].mark == 1_800_000_000.5
    assert row == msgspec.json.decode(PREVIOUS_ROW, type=PreviousRow)


def test_the_previous_version_decodes_default_values() -> None:
    written = Figures(queues={EMAIL_HIGH: QueueFigures()}, providers={"smtp": ProviderFigures()})
    row = msgspec.json.decode(encode_figures(written), type=PreviousRow)
    assert (row.queues["email.high"].held_since, row.providers["smtp"].answered_s) == (None, None)


def test_missing_fields_have_defaults() -> None:
    figures = decode_figures('{"queues": {"email.high": {}}, "providers": {"smtp": {}}}')
    assert figures.queues == {EMAIL_HIGH: QueueFigures()}
    assert figures.providers == {"smtp": ProviderFigures()}


def test_the_capacity_is_unknown_in_a_row_of_the_previous_version() -> None:
    assert decode_figures(PREVIOUS_ROW).queues[EMAIL_HIGH].capacity_per_s is None
    written = Figures(queues={EMAIL_HIGH: QueueFigures(capacity_per_s=0.0)}, providers={})
    assert decode_figures(encode_figures(written)) == written


def test_unknown_fields_are_ignored() -> None:
    figures = decode_figures(
        '{"queues": {"email.high": {"held": 1, "new": [1]}},'
        ' "providers": {"smtp": {"calls": 2, "new": {}}}, "new": null}'
    )
    assert figures.queues == {EMAIL_HIGH: QueueFigures(held=1)}
    assert figures.providers == {"smtp": ProviderFigures(calls=2)}


def test_only_a_process_that_drains_says_so() -> None:
    assert "draining" not in encode_figures(FIGURES)
    draining = Figures(queues={}, providers={}, is_draining=True)
    assert decode_figures(encode_figures(draining)) == draining
    assert msgspec.json.decode(encode_figures(draining), type=PreviousRow) == PreviousRow()


def test_a_queue_or_provider_that_does_not_fit_is_left_out() -> None:
    figures = decode_figures(
        '{"queues": {"email.urgent": {}, "email": {}, "email.high": {"held": 1},'
        ' "sms.high": {"held": "many"}}, "providers": {"smtp": {"calls": 2}, "fcm": []}}'
    )
    assert figures.queues == {EMAIL_HIGH: QueueFigures(held=1)}
    assert figures.providers == {"smtp": ProviderFigures(calls=2)}


def test_a_row_names_the_features_of_its_process() -> None:
    assert decode_figures(encode_figures(FIGURES)).features == ALL_FEATURES


@pytest.mark.parametrize(
    ("stored", "features"),
    [
        (PREVIOUS_ROW, set()),
        ('{"features": ["copies", "telepathy"]}', {"copies", "telepathy"}),
        ('{"features": ["copies", 7, null]}', {"copies"}),
        ('{"features": null}', set()),
        ('{"features": {"copies": 1}}', set()),
    ],
)
def test_what_is_no_feature_is_left_out(stored: str, features: set[str]) -> None:
    assert decode_figures(stored).features == features


@pytest.mark.parametrize("stored", ["", "[]", '{"queues": []}'])
def test_what_does_not_fit_is_a_value_error(stored: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_figures(stored)
