"""The log of lost channels: once per reason, and again after a success."""

from __future__ import annotations

import structlog.testing

from notifier.adapters.rabbitmq.channel_owner import LogOncePerReason


def reasons_logged(failures: list[tuple[str, bool]]) -> list[str]:
    """Return the reasons that are logged for failures of (reason, is_first)."""
    losses = LogOncePerReason("broker_channel_closed", channel="email.low")
    with structlog.testing.capture_logs() as records:
        for reason, is_first in failures:
            losses.warn(reason, is_first=is_first)
    assert all(record["channel"] == "email.low" for record in records)
    return [record["reason"] for record in records]


def test_a_repeated_reason_is_logged_once() -> None:
    assert reasons_logged([("refused", True), ("refused", False), ("refused", False)]) == [
        "refused"
    ]


def test_a_new_reason_is_logged() -> None:
    assert reasons_logged([("refused", True), ("closed", False)]) == ["refused", "closed"]


def test_after_a_success_the_same_reason_is_logged_again() -> None:
    assert reasons_logged([("refused", True), ("refused", True)]) == ["refused", "refused"]
