"""Which calls of the client are repeated, when, and with which key."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from notifier.api.http.problem_types import ProblemType, Repeat
from notifier_client import InvalidRequest, NotifierError, RateLimited, Unavailable
from notifier_client.calls import Calls
from notifier_client.exchange import Answer, NoAnswer, Steps
from notifier_client.retrying import SAFE, may_repeat, pause_before
from tests.client_steps import LOST, REFUSED, Player, accepted, answer, refusal, row

MAIL = {"channel": "email", "recipient": "ada@example.com", "subject": "Hi"}
PROXY = Answer(503, {}, b"<html>no backend</html>")

ALL: Mapping[str, Callable[[Calls], Steps[Any]]] = {
    "send": lambda calls: calls.send(MAIL),
    "read": lambda calls: calls.get("n1"),
    "cancel": lambda calls: calls.cancel("n1", None),
    "retry": lambda calls: calls.retry("n1", None),
}
GOOD = answer(200, {**row(), **accepted()})


def test_the_client_repeats_what_the_page_of_problems_calls_safe() -> None:
    safe = {each.value.slug for each in ProblemType if each.value.repeat is Repeat.SAFE}
    assert safe == SAFE


@pytest.mark.parametrize(
    ("reply", "repeats"),
    [
        (refusal("body-timeout", 408), "send read cancel retry"),
        (refusal("rate-limited", 429), "send read cancel retry"),
        (refusal("overloaded", 503), "send read cancel retry"),
        (refusal("idempotency-pending", 409), "send read cancel retry"),
        (refusal("store-unavailable", 503), "send read cancel"),
        (refusal("of-a-later-version", 503), "send read cancel"),
        (PROXY, "send read cancel"),
        (Answer(408), "send read cancel"),
        (Answer(429), "send read cancel retry"),
        (LOST, "send read cancel"),
        (REFUSED, "send read cancel retry"),
        (refusal("internal-error", 500), ""),
        (Answer(502), ""),
        (Answer(504), ""),
        (refusal("invalid-field", 400), ""),
        (refusal("wrong-status", 409), ""),
        (refusal("idempotency-mismatch", 422), ""),
        (refusal("key-invalid", 401), ""),
        (Answer(302), ""),
    ],
)
@pytest.mark.parametrize("call", ALL)
def test_what_is_not_safe_to_repeat_is_not_repeated(
    reply: Answer | NoAnswer, repeats: str, call: str
) -> None:
    player = Player(reply, GOOD)
    if call in repeats.split():
        player.run(ALL[call](player.calls))
        assert len(player.requests) == 2
    else:
        with pytest.raises(NotifierError):
            player.run(ALL[call](player.calls))
        assert len(player.requests) == 1


def test_all_attempts_of_a_submit_have_one_key_and_each_submit_has_another() -> None:
    player = Player(LOST, PROXY, REFUSED, answer(202, accepted(), idempotent_replayed="true"))
    first = player.run(player.calls.send(MAIL))
    assert len({request.body for request in player.requests}) == 1
    assert (first.is_replay, first.idempotency_key) == (True, player.bodies[0]["idempotency_key"])

    second = player.run(player.calls.send(MAIL))
    assert second.idempotency_key != first.idempotency_key

    third = player.run(player.calls.send({**MAIL, "idempotency_key": "order-17"}))
    assert (third.idempotency_key, player.bodies[-1]["idempotency_key"]) == ("order-17",) * 2


def test_an_error_has_the_key_with_which_the_submit_is_repeated_later() -> None:
    player = Player(LOST)
    with pytest.raises(Unavailable) as caught:
        player.run(player.calls.send(MAIL))
    assert caught.value.idempotency_key == player.bodies[0]["idempotency_key"]
    assert (caught.value.status, caught.value.type) == (None, None)


def test_the_pauses_double_and_end_at_the_deadline() -> None:
    player = Player(PROXY)
    with pytest.raises(Unavailable):
        player.run(player.calls.send(MAIL))
    assert player.pauses[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert player.now - 1000.0 <= 30.0


def test_attempts_without_an_answer_end_at_the_deadline() -> None:
    player = Player(LOST)
    with pytest.raises(Unavailable):
        player.run(player.calls.send(MAIL))
    assert player.timeouts[:2] == [10.0, 10.0]
    assert player.now - 1000.0 <= 30.0 + 0.1


def test_retry_after_is_the_least_pause() -> None:
    player = Player(refusal("rate-limited", 429, retry_after="7"), GOOD)
    player.run(player.calls.send(MAIL))
    assert player.pauses == pytest.approx([7.1])


def test_a_retry_after_past_the_deadline_is_an_error_at_once() -> None:
    player = Player(refusal("rate-limited", 429, retry_after="31"))
    with pytest.raises(RateLimited) as caught:
        player.run(player.calls.send(MAIL))
    assert (player.pauses, caught.value.retry_after_s) == ([], 31.0)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "²", "Wed, 99 Nov 2026"])
def test_a_retry_after_that_cannot_be_read_is_as_none(text: str) -> None:
    assert Answer(503, {"retry-after": text}).retry_after_s is None


def test_a_retry_after_may_be_a_date() -> None:
    assert Answer(503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}).retry_after_s == 0.0
    future = Answer(503, {"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}).retry_after_s
    assert future is not None
    assert future > 1e6


@pytest.mark.parametrize("number", [0, 3, 10_000])
def test_jitter_shortens_a_pause_by_half_at_most(number: int) -> None:
    longest = pause_before(number, LOST, 0.0)
    assert longest <= 5.0
    assert pause_before(number, LOST, 1.0) == pytest.approx(longest / 2)


def test_a_success_is_never_repeated_whatever_its_body_says() -> None:
    player = Player(refusal("overloaded", 202))
    with pytest.raises(NotifierError):
        player.run(player.calls.send(MAIL))
    assert len(player.requests) == 1
    assert not may_repeat(player.requests[0], refusal("overloaded", 202))


def test_an_error_survives_pickling() -> None:
    player = Player(refusal("invalid-field", 400))
    with pytest.raises(InvalidRequest) as caught:
        player.run(player.calls.send(MAIL))
    error = caught.value
    error.results = (error,)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    assert (type(copy), copy.problem, str(copy)) == (InvalidRequest, error.problem, str(error))
    assert len(copy.results) == 1
