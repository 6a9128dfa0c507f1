"""Providers: which of them fails or is slow, and how much of its rate is used."""

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
    """The page of the providers that the variable chooses, all at first."""
    return dashboard(
        "providers",
        "Which provider fails, hangs or is slow, what it answers, and how much of its rate is "
        "used.",
        [_well(), _answers(), _pace()],
        [
            variable(
                "provider", "Provider", "label_values(notifier_breaker, provider)", several=True
            )
        ],
    )


def _well() -> Section:
    first = [Place(_breakers(), 12, 6), Place(_hangs(), 12, 6)]
    return Section("Are they well?", [first, [Place(_failing(), 12), Place(_openings(), 12)]])


def _answers() -> Section:
    return Section("What do they say?", [[Place(_outcomes(), 12), Place(_codes(), 12)]])


def _pace() -> Section:
    first = [Place(_length(0.99), 12), Place(_length(0.5), 12)]
    return Section("How fast are they?", [first, [Place(_rate(), 12), Place(_use(), 12)]])


def _breakers() -> Json:
    return state_timeline(
        "Breaker",
        "open: the provider fails and its rows wait unspent; notifier providers says why. It is "
        "probed after 5 s, then up to every minute. credentials: put the right ones in place.",
        Query(
            worst("notifier_breaker", "state", BREAKER_RANKS, by="provider", where=CHOSEN),
            "{{provider}}",
        ),
        states=BREAKER_STATES,
    )


def _hangs() -> Json:
    return state_timeline(
        "Hangs, by channel",
        "hangs: calls are not answered, and at most a quarter of the consumers wait for them. "
        "Nothing to do, or pause the provider so that no try is spent.",
        Query(seen("notifier_provider_hanging", by="channel"), "{{channel}}"),
        states=HANG_STATES,
    )


def _failing() -> Json:
    bad = f'outcome=~"unavailable|ambiguous", {CHOSEN}'
    return timeseries(
        "Calls that failed",
        "The share of calls that were unavailable or cut. From a half of at least 20 calls in 10 s "
        "on the breaker opens by itself; below that for minutes: ask the provider.",
        Query(
            share(per_second("notifier_attempts_total", by="provider", where=bad), CALLS),
            "{{provider}}",
        ),
        unit="percentunit",
        most=1,
    )


def _openings() -> Json:
    return timeseries(
        "Breaker openings, by reason",
        "errors, in_a_row: the provider failed. credentials: it refuses ours, put the right ones "
        "in place. probe: it still fails.",
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
        "What the answers mean to Notifier. throttled: it says too fast, and the rate is cut by "
        "itself. refused: bad addresses. ambiguous: cut or timed out after the message went out.",
        Query(per_second("notifier_attempts_total", by="outcome", where=CHOSEN), "{{outcome}}"),
        unit="reqps",
        colours=OUTCOMES,
        stacked=True,
    )


def _codes() -> Json:
    return timeseries(
        "Calls by code",
        "The provider's own codes, for its documentation or its support. A code that is new since "
        "the trouble began is where to look first; timeout and no_connection are Notifier's words.",
        Query(
            per_second("notifier_provider_responses_total", by="provider, code", where=CHOSEN),
            "{{provider}} {{code}}",
        ),
        unit="reqps",
        stacked=True,
    )


def _length(part: float) -> Json:
    return timeseries(
        f"Length of a call, p{part * 100:g}",
        "How long the provider takes to answer. If it doubles, the same consumers send half as "
        "much: ask the provider, or raise --consumers meanwhile.",
        Query(
            quantile(part, "notifier_attempt_seconds", by="provider", where=CHOSEN),
            "{{provider}}",
        ),
        unit="s",
    )


def _rate() -> Json:
    return timeseries(
        "Calls, and the rate allowed",
        "Calls a second, and the provider's rate as it is now (dashed; 0: no limit). The rate "
        "falls when the provider says too fast and grows back in seconds; it must not stay low.",
        Query(CALLS, "{{provider}}"),
        Query(RATE, "{{provider}} allowed"),
        unit="reqps",
        dashed=["allowed"],
    )


def _use() -> Json:
    return timeseries(
        "Use of the rate",
        "Calls against the rate allowed; 0 where there is no limit. Near 100 % while queues wait: "
        "raise rate, if the provider allows, or let them wait.",
        Query(share(CALLS, RATE), "{{provider}}"),
        unit="percentunit",
    )
