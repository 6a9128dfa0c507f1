"""The dashboard Providers: breakers, hangs, outcomes, durations and rates."""

from __future__ import annotations

from typing import Final

from grafana.colours import BREAKER_RANKS, BREAKER_STATES, HANG_STATES, OUTCOMES
from grafana.layout import Section, dashboard, variable
from grafana.panels import Json, Place, Query, state_timeline, timeseries
from grafana.promql import counted, per_second, quantile, seen, share, worst

CHOSEN: Final = 'provider=~"$provider"'
CALLS: Final = per_second("notifier_attempts_total", by="provider", where=CHOSEN)
RATE: Final = seen("notifier_provider_rate_per_second", by="provider", where=CHOSEN)


def providers() -> Json:
    """Return the dashboard of the providers; a variable selects some or all."""
    return dashboard(
        "providers",
        "Which provider fails, hangs or is slow, how its calls end, and how much of its rate is "
        "used.",
        [_health(), _responses(), _speed()],
        [
            variable(
                "provider", "Provider", "label_values(notifier_breaker, provider)", several=True
            )
        ],
    )


def _health() -> Section:
    first = [Place(_breakers(), 12, 6), Place(_hangs(), 12, 6)]
    return Section("Are they healthy?", [first, [Place(_failing(), 12), Place(_openings(), 12)]])


def _responses() -> Section:
    return Section("How do their calls end?", [[Place(_outcomes(), 12), Place(_codes(), 12)]])


def _speed() -> Section:
    first = [Place(_duration(0.99), 12), Place(_duration(0.5), 12)]
    return Section("How fast are they?", [first, [Place(_rate(), 12), Place(_use(), 12)]])


def _breakers() -> Json:
    return state_timeline(
        "Breaker",
        "open: the provider fails and its notifications wait; the command notifier providers says "
        "why. It is probed after 5 s, later once a minute. credentials: put the right ones in "
        "place.",
        Query(
            worst("notifier_breaker", "state", BREAKER_RANKS, by="provider", where=CHOSEN),
            "{{provider}}",
        ),
        states=BREAKER_STATES,
    )


def _hangs() -> Json:
    return state_timeline(
        "Hangs, by channel",
        "hangs: calls are not answered, and hold at most a quarter of the consumers. Wait, or "
        "pause the provider, so that no try is spent.",
        Query(seen("notifier_provider_hanging", by="channel"), "{{channel}}"),
        states=HANG_STATES,
    )


def _failing() -> Json:
    bad = f'outcome=~"unavailable|ambiguous", {CHOSEN}'
    return timeseries(
        "Calls that failed",
        "The share of calls that ended as unavailable or ambiguous. The breaker opens at half of "
        "at least 20 calls in 10 s. Below that for minutes: ask the provider.",
        Query(
            share(per_second("notifier_attempts_total", by="provider", where=bad), CALLS),
            "{{provider}}",
        ),
        unit="percentunit",
        maximum=1,
    )


def _openings() -> Json:
    return timeseries(
        "Breaker openings, by reason",
        "errors, consecutive: the provider failed. credentials: it refuses ours; put the right "
        "ones in place. probe: it still fails.",
        Query(
            counted("notifier_breaker_openings_total", by="provider, reason", where=CHOSEN),
            "{{provider}} {{reason}}",
        ),
        unit="short",
        stacked=True,
        bars=True,
    )


def _outcomes() -> Json:
    return timeseries(
        "Calls by outcome",
        "The outcomes of the calls. throttled: too many calls; Notifier cuts the rate. refused: "
        "bad addresses. ambiguous: the call was cut or timed out after the message had been sent.",
        Query(per_second("notifier_attempts_total", by="outcome", where=CHOSEN), "{{outcome}}"),
        unit="reqps",
        colours=OUTCOMES,
        stacked=True,
    )


def _codes() -> Json:
    return timeseries(
        "Calls by code",
        "The provider's own codes; its documentation explains them. First look up a code that is "
        "new since the trouble began. timeout and no_connection are codes of Notifier.",
        Query(
            per_second("notifier_provider_responses_total", by="provider, code", where=CHOSEN),
            "{{provider}} {{code}}",
        ),
        unit="reqps",
        stacked=True,
    )


def _duration(part: float) -> Json:
    return timeseries(
        f"Duration of a call, p{part * 100:g}",
        "How long the provider takes to answer. If it doubles, the same consumers send half as "
        "many: ask the provider, or raise --consumers meanwhile.",
        Query(
            quantile(part, "notifier_attempt_seconds", by="provider", where=CHOSEN),
            "{{provider}}",
        ),
        unit="s",
    )


def _rate() -> Json:
    return timeseries(
        "Calls, and the rate allowed",
        "Calls per second, and the provider's present rate (dashed; 0: no limit). The rate is cut "
        "when the provider throttles, and recovers within seconds. It should not stay low.",
        Query(CALLS, "{{provider}}"),
        Query(RATE, "{{provider}} allowed"),
        unit="reqps",
        dashed=["allowed"],
    )


def _use() -> Json:
    return timeseries(
        "Rate used",
        "Calls as a share of the rate; 0 where there is no limit. Near 100 % while queues wait: "
        "raise rate, if the provider allows it, or let them wait.",
        Query(share(CALLS, RATE), "{{provider}}"),
        unit="percentunit",
    )
