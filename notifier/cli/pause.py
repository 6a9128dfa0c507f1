"""`pause` and `resume`: hold back a queue, a channel or a provider, and let it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from cyclopts import Parameter

from notifier.cli.configured import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_briefly
from notifier.cli.spans import Span, span_words
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.cli.client import Pause, Resumed

Target = Annotated[
    str | None, Parameter(help="A queue (email.low) or a channel (email).", show_default=False)
]
ProviderName = Annotated[
    str | None, Parameter(name="--provider", help="A provider, in place of a queue or channel.")
]


def pause(
    target: Target = None,
    *,
    provider: ProviderName = None,
    span: Annotated[
        Span | None,
        Parameter(
            name="--for",
            help="How long: 90s, 15m, 1h30m.",
            show_default=lambda _: "until resumed",
        ),
    ] = None,
    reason: Annotated[
        str, Parameter(name=["--reason", "-r"], help="Why; kept with it.", show_default=False)
    ] = "",
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Send nothing of it. A pause that holds gets the new reason and end."""
    path = _path(target, provider)
    run_briefly(_pause(api_url(url), path, {"reason": reason, "for": span}, as_json=json))


def resume(
    target: Target = None,
    *,
    provider: ProviderName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Let a queue, channel or provider go on. A wider pause that covers it stays."""
    run_briefly(_resume(api_url(url), _path(target, provider), as_json=json))


def _path(target: str | None, provider: str | None) -> str:
    if target and provider is None:
        kind = "queues" if "." in target else "channels"
        return f"/v1/{kind}/{quote(target, safe='')}"
    if provider and target is None:
        return f"/v1/providers/{quote(provider, safe='')}"
    raise ConfigError("say what: a queue (email.low), a channel (email) or --provider NAME")


async def _pause(url: str, path: str, asked: dict[str, object], *, as_json: bool) -> None:
    from notifier.cli.client import Pause, open_client  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        held = await client.post(f"{path}/pause", asked, Pause)
    print_json(held) if as_json else print(_paused_line(held))


async def _resume(url: str, path: str, *, as_json: bool) -> None:
    from notifier.cli.client import Resumed, open_client  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        ended = await client.post(f"{path}/resume", {}, Resumed)
    print_json(ended) if as_json else print(_resumed_line(ended))


def _paused_line(held: Pause) -> str:
    ends_in_s = held.expires_in_s
    how_long = "until resumed" if ends_in_s is None else f"for {span_words(ends_in_s)}"
    return f"{held.kind} {held.name} paused {how_long}"


def _resumed_line(ended: Resumed) -> str:
    return f"{ended.kind} {ended.name} {'resumed' if ended.resumed else 'was not paused'}"
