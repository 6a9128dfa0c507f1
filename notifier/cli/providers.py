"""`providers`: shows the state of every provider, or probes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import quote

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url, one_line
from notifier.cli.running import run_async
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.responses import Provider

_PATH: Final = "/v1/providers"
_COLUMNS: Final[dict[str, Callable[[Provider], object]]] = {
    "provider": lambda provider: provider.provider,
    "channels": lambda provider: ", ".join(provider.channels),
    "breaker": lambda provider: provider.breaker,
    "reason": lambda provider: provider.reason if _is_open(provider) else "",
    "code": lambda provider: provider.code if _is_open(provider) else "",
    "probe at": lambda provider: provider.probe_at,
    "calls 10 s": lambda provider: provider.calls,
    "failed": lambda provider: provider.failures,
    "hangs": lambda provider: ", ".join(provider.hanging),
    "paused": lambda provider: "paused" if provider.paused else "",
}


def providers(
    verb: Annotated[
        Literal["probe"] | None, Parameter(help="Probe a provider now.", show_default=False)
    ] = None,
    provider: Annotated[str | None, Parameter(help="Which one.", show_default=False)] = None,
    *,
    note: Annotated[str, Parameter(help="Why; it is kept in the audit.", show_default=False)] = "",
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Show every provider: breaker, reason, and the calls and failures of the last 10 s."""
    if verb is None:
        run_async(_providers(api_url(url), as_json=json))
        return
    if provider is None:
        raise ConfigError("expected the name of a provider, as `notifier providers` shows it")
    run_async(_probe(api_url(url), provider, one_line(note), as_json=json))


async def _probe(url: str, provider: str, note: str, *, as_json: bool) -> None:
    from notifier.api.responses import Provider  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        path = f"{_PATH}/{quote(provider, safe='')}/probe"
        state = await client.post(path, {"note": note}, Provider)
    if as_json:
        print_json(state)
    elif _is_open(state):
        print(f"{provider}: the next notification that waits for it is the probe")
    else:
        print(f"{provider}: its breaker is closed, nothing to probe")


async def _providers(url: str, *, as_json: bool) -> None:
    from notifier.api.responses import ProviderPage  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_client(url) as client:
        if as_json:
            print_json(await client.get_raw(_PATH))
            return
        rows = (await client.get(_PATH, ProviderPage)).items
    print_table(list(_COLUMNS), [[cell(row) for cell in _COLUMNS.values()] for row in rows])


def _is_open(provider: Provider) -> bool:
    # A closed breaker keeps the reason of its last opening.
    return provider.breaker != "closed"
