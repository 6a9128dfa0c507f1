"""What an explanation takes from the settings, also where a secret of a provider is missing."""

from __future__ import annotations

import pytest

from notifier.app.process import queues_of
from notifier.app.queue_rules import explained_rules
from notifier.settings.convert import Text
from notifier.settings.tree import ChannelSettings, Settings
from tests.builders import EMAIL_HIGH, EMAIL_LOW


def settings(rate: object) -> Settings:
    provider = {"type": "smtp"} if rate is None else {"type": "smtp", "rate": rate}
    return Settings(
        channels={"email": ChannelSettings(address="email", provider="relay", consumer_rate=2.0)},
        providers={"relay": provider},
    )


@pytest.mark.parametrize(
    ("rate", "per_s"),
    [(None, None), (50, 50.0), (0.5, 0.5), (Text("40.5"), 40.5)]
    + [(wrong, None) for wrong in ("fast", Text(""), 0, -1, [1])],
)
def test_the_rate_of_a_provider_is_read_without_its_other_settings(
    rate: object, per_s: float | None
) -> None:
    with_rate = settings(rate)
    rules = explained_rules(with_rate, queues_of(with_rate))
    assert len(rules) == 3
    assert rules[EMAIL_LOW].provider == "relay"
    assert rules[EMAIL_LOW].provider_rate_per_s == per_s
    assert rules[EMAIL_LOW].consumer_rate_per_s == 2.0
    assert (rules[EMAIL_HIGH].target_wait_s, rules[EMAIL_LOW].target_wait_s) == (1.0, 60.0)
