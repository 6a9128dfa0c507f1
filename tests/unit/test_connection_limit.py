from __future__ import annotations

from dataclasses import dataclass

import pytest

from notifier.adapters.providers.connection_limit import ConnectionLimit


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def limit_of(maximum: int) -> tuple[ConnectionLimit, Clock]:
    clock = Clock()
    return ConnectionLimit("smtp", maximum, clock), clock


def test_without_a_refusal_the_limit_is_the_setting() -> None:
    limit, _ = limit_of(32)
    assert limit.connections == 32
    assert not limit.is_lowered
    assert limit.may_connect_in_s == 0


def test_a_refusal_halves_the_limit_at_most_once_a_second() -> None:
    limit, clock = limit_of(32)
    limit.on_refused(connected=1)
    limit.on_refused(connected=1)
    assert limit.connections == 16
    assert limit.may_connect_in_s == 1
    clock.now += 1
    assert limit.may_connect_in_s == 0
    limit.on_refused(connected=1)
    assert limit.connections == 8


def test_the_limit_is_never_below_what_the_server_keeps_open() -> None:
    limit, clock = limit_of(32)
    for _ in range(5):
        limit.on_refused(connected=10)
        clock.now += 1
    assert limit.connections == 10


def test_the_limit_grows_by_one_each_ten_seconds_up_to_the_setting() -> None:
    limit, clock = limit_of(4)
    limit.on_refused(connected=0)
    clock.now += 9
    assert limit.connections == 2
    clock.now += 1
    assert limit.connections == 3
    clock.now += 1000
    assert limit.connections == 4
    assert not limit.is_lowered


def test_a_connection_that_the_server_takes_raises_the_limit_to_their_number() -> None:
    limit, _ = limit_of(32)
    limit.on_refused(connected=3)
    limit.on_connected(20)
    assert limit.connections == 20


def test_a_known_limit_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    limit, clock = limit_of(32)
    for _ in range(5):
        limit.on_refused(connected=20)
        clock.now += 11
    assert capsys.readouterr().out.count("provider_connections_limited") == 1


def test_the_limit_is_at_least_one() -> None:
    limit, clock = limit_of(2)
    for _ in range(3):
        limit.on_refused(connected=0)
        clock.now += 1
    assert limit.connections == 1
