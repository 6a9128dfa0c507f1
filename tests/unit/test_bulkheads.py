from __future__ import annotations

from dataclasses import dataclass, field

from notifier.domain.notification import Channel
from notifier.scheduling.rates.bulkheads import Bulkheads, ProviderConnections

EMAIL, LETTER, SMS = Channel("email"), Channel("letter"), Channel("sms")


@dataclass
class Found:
    connection_limit: int


@dataclass
class Reports:
    seen: list[tuple[str, int]] = field(default_factory=list)

    def provider_connections_changed(self, provider: str, connections: int) -> None:
        self.seen.append((provider, connections))


def test_the_channels_of_a_provider_share_the_connections_that_its_server_takes() -> None:
    found, reports = Found(32), Reports()
    bulkheads = Bulkheads(
        {EMAIL: "smtp", LETTER: "smtp", SMS: "twilio"},
        {"smtp": ProviderConnections(32, found), "twilio": ProviderConnections(100)},
        reports,
    )
    assert [bulkheads.call_limit(channel) for channel in (EMAIL, LETTER, SMS)] == [16, 16, 100]
    assert bulkheads.lowered() == {}
    found.connection_limit = 10
    assert [bulkheads.call_limit(channel) for channel in (EMAIL, LETTER, SMS)] == [5, 5, 100]
    assert bulkheads.lowered() == {"smtp": 10}
    found.connection_limit = 1
    assert bulkheads.call_limit(EMAIL) == 1
    assert reports.seen == [("smtp", 32), ("twilio", 100), ("smtp", 10), ("smtp", 1)]


def test_a_channel_without_a_provider_has_no_limit() -> None:
    assert Bulkheads({}, {}, Reports()).call_limit(EMAIL) is None
