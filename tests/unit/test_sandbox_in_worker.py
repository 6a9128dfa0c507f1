"""The provider of test keys: the recipient of any kind chooses the outcomes."""

from __future__ import annotations

import pytest

from harness.client import DIGITS
from notifier.adapters.providers.registry import PROVIDER_TYPES, check_provider, open_provider
from notifier.app.providers import breaker_rules, provider_settings
from notifier.domain.breaker import ProviderFigures, decide_opening, refuses_all
from notifier.domain.finding import CheckStatus
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Accepted
from notifier.ports.provider import Envelope, Provider
from notifier.settings import Settings, convert_table
from notifier.settings.tree import ChannelSettings
from tests.builders import new_id

SETTINGS = convert_table({"type": "sandbox", "timeout_s": 0.01}, PROVIDER_TYPES, key="providers.t")
FATES = {
    "ok": ["accepted"],
    "refuse": ["refused", "refused"],
    "flaky-2": ["unavailable", "unavailable", "accepted"],
    "throttle-2": ["throttled", "throttled", "accepted"],
    "down": ["unavailable"] * 4,
    "hang": ["ambiguous"],
    "cut": ["ambiguous", "ambiguous"],
}


async def sent(provider: Provider, recipient: str, times: int) -> list[str]:
    id_ = new_id()
    return [
        (
            await provider.send(
                Envelope(
                    id=id_,
                    claim=claim,
                    queue=QueueKey.parse("test.high"),
                    recipient=recipient,
                    content={},
                )
            )
        ).name
        for claim in range(1, times + 1)
    ]


@pytest.mark.parametrize("fate", FATES)
async def test_the_recipient_of_any_kind_chooses_the_outcomes(fate: str) -> None:
    recipients = (f"{fate}+x@example.com", f"+1500555000{DIGITS[fate]}", f"fate-{fate}-x")
    async with open_provider("t", SETTINGS) as provider:
        for recipient in recipients:
            expected = FATES[fate]
            assert await sent(provider, recipient, len(expected)) == expected, recipient


async def test_what_is_accepted_has_a_reference_that_shows_the_test() -> None:
    id_ = new_id()
    queue = QueueKey.parse("test.high")
    async with open_provider("t", SETTINGS) as provider:
        outcome = await provider.send(
            Envelope(id=id_, claim=1, queue=queue, recipient="a@example.com", content={})
        )
    assert outcome == Accepted(reference=f"test-{id_}")


async def test_doctor_says_that_nothing_is_delivered() -> None:
    finding = await check_provider("t", SETTINGS)
    assert (finding.status, "delivers nothing" in finding.finding) == (CheckStatus.OK, True)


def test_no_fate_opens_the_breaker() -> None:
    settings = Settings(
        channels={"test": ChannelSettings(address="token", provider="t")},
        providers={"t": {"type": "sandbox"}},
    )
    rule = breaker_rules(settings, provider_settings(settings))["t"]
    failing = ProviderFigures(calls=100, failures=100, streak=100, streak_s=60.0, code="down")
    refusing = ProviderFigures(calls=100, refused=tuple(range(100)), refused_s=60.0)
    assert decide_opening([failing]) is not None
    assert decide_opening([failing], rule) is None
    assert decide_opening([refusing]) is not None
    assert decide_opening([refusing], rule) is None
    assert not refuses_all([refusing], rule)
    assert rule.stop_unanswered_s == {}
