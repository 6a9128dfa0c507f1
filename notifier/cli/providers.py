"""`providers`: which of them can be sent through, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from notifier.cli.configured import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_briefly

if TYPE_CHECKING:
    from notifier.cli.client import Provider

_PATH: Final = "/v1/providers"
_COLUMNS: Final[dict[str, Callable[[Provider], object]]] = {
    "provider": lambda one: one.provider,
    "channels": lambda one: ", ".join(one.channels),
    "breaker": lambda one: one.breaker,
    "why": lambda one: one.reason if _is_held_back(one) else "",
    "probe in s": lambda one: one.probe_in_s if _is_held_back(one) else None,
    "calls 10 s": lambda one: one.calls,
    "failed": lambda one: one.failures,
    "paused": lambda one: "paused" if one.paused else "",
}


def providers(*, url: Url = None, json: AsJson = False) -> None:
    """Show every provider: its breaker and why, its calls and failures of the last 10 s."""
    run_briefly(_providers(api_url(url), as_json=json))


async def _providers(url: str, *, as_json: bool) -> None:
    from notifier.cli.client import Provider, open_client  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_client(url) as client:
        if as_json:
            print_json(await client.raw(_PATH))
            return
        found = await client.get(_PATH, list[Provider])
    print_table(list(_COLUMNS), [[read(one) for read in _COLUMNS.values()] for one in found])


def _is_held_back(one: Provider) -> bool:
    """Whether its breaker is open: a closed one keeps the reason of its last opening."""
    return one.breaker != "closed"
