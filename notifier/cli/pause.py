"""`pause` and `resume` for a queue, a channel or a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span, span_words
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.responses import PauseState, Resumed

Target = Annotated[
    str | None, Parameter(help="A queue (email.low) or a channel (email).", show_default=False)
]
ProviderName = Annotated[
    str | None, Parameter(name="--provider", help="A provider instead of a queue or channel.")
]


def pause(
    target: Target = None,
    *,
    provider: ProviderName = None,
    span: Annotated[
        Span | None,
        Parameter(
            name="--for",
            help="Such as 90s, 15m or 1h30m.",
            show_default=lambda _: "until resumed",
        ),
    ] = None,
    reason: Annotated[
        str,
        Parameter(
            name=["--reason", "-r"], help="Reason, stored with the pause.", show_default=False
        ),
    ] = "",
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Pause sends. An existing pause gets the new reason and end."""
    path = _path(target, provider)
    run_async(_pause(api_url(url), path, {"reason": reason, "for": span}, as_json=json))


def resume(
    target: Target = None,
    *,
    provider: ProviderName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Resume a queue, channel or provider. A wider pause that covers it remains."""
    run_async(_resume(api_url(url), _path(target, provider), as_json=json))


def _path(target: str | None, provider: str | None) -> str:
    if target and provider is None:
        kind = "queues" if "." in target else "channels"
        return f"/v1/{kind}/{quote(target, safe='')}"
    if provider and target is None:
        return f"/v1/providers/{quote(provider, safe='')}"
    raise ConfigError(
        "expected one target: a queue (email.low), a channel (email) or --provider NAME"
    )


async def _pause(url: str, path: str, body: dict[str, object], *, as_json: bool) -> None:
    from notifier.api.responses import PauseState  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        state = await client.post(f"{path}/pause", body, PauseState)
    print_json(state) if as_json else print(_paused_line(state))


async def _resume(url: str, path: str, *, as_json: bool) -> None:
    from notifier.api.responses import Resumed  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        response = await client.post(f"{path}/resume", {}, Resumed)
    print_json(response) if as_json else print(_resumed_line(response))


def _paused_line(state: PauseState) -> str:
    expires_in_s = state.expires_in_s
    duration = "until resumed" if expires_in_s is None else f"for {span_words(expires_in_s)}"
    return f"{state.kind} {state.name} paused {duration}"


def _resumed_line(response: Resumed) -> str:
    outcome = "resumed" if response.resumed else "was not paused"
    return f"{response.kind} {response.name} {outcome}"
