"""The rates of a worker's providers, looked up by queue."""

from __future__ import annotations

import asyncio
from random import Random

from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Accepted, Outcome, Throttled
from notifier.lifecycle import background_task
from notifier.ports.attempts import EndedCall
from notifier.ports.rates import Slice
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.provider_rates import ProviderRates
from tests.builders import EMAIL_HIGH, SMS_HIGH
from tests.virtual_time import run_virtually


class RecordingStore:
    """Reserves every slot that is asked for, and records the cuts."""

    def __init__(self) -> None:
        self.cuts: list[str] = []

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        assert provider == "smtp"
        return Slice(starts_in_s=0.0, spacing_s=1 / rate_per_s, count=count, rate_per_s=rate_per_s)

    async def cut(self, provider: str) -> bool:
        self.cuts.append(provider)
        return True


class IgnoringObserver:
    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None: ...


def smtp_rate(store: RecordingStore) -> ProviderRate:
    return ProviderRate(
        "smtp",
        100.0,
        store=store,
        clock=asyncio.get_running_loop().time,
        observer=IgnoringObserver(),
        random=Random(0),
    )


def rates_with(rate: ProviderRate) -> ProviderRates:
    return ProviderRates({EMAIL_HIGH.channel: "smtp", SMS_HIGH.channel: "sms"}, {"smtp": rate})


def test_only_queues_whose_provider_has_a_rate_are_limited() -> None:
    async def look_up() -> None:
        rate = smtp_rate(RecordingStore())
        rates = rates_with(rate)
        assert rates.by_queue([EMAIL_HIGH, SMS_HIGH]) == {EMAIL_HIGH: rate}

    run_virtually(look_up())


def test_a_throttled_call_cuts_the_rate_of_its_provider_and_no_other_outcome_does() -> None:
    async def throttle() -> None:
        store = RecordingStore()
        rate = smtp_rate(store)
        rates = rates_with(rate)
        async with background_task(rate, "rate"):
            rates.on_outcome(ended(EMAIL_HIGH, "smtp", Accepted()))
            rates.on_outcome(ended(SMS_HIGH, "sms", Throttled(code="429")))
            await asyncio.sleep(1)
            assert store.cuts == []
            rates.on_outcome(ended(EMAIL_HIGH, "smtp", Throttled(code="429")))
            await asyncio.sleep(0.1)
            assert store.cuts == ["smtp"]

    run_virtually(throttle())


def ended(queue: QueueKey, provider: str, outcome: Outcome) -> EndedCall:
    return EndedCall(queue=queue, provider=provider, outcome=outcome, started_at=0.0)
