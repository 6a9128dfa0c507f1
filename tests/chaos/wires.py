"""Network faults between our processes and their servers: reset, slow, silent, half closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from harness.tcp_proxy import TcpProxy
from tests.chaos.links import SIDES, ProxiedLinks
from tests.chaos.round import Fault, Round
from tests.chaos.servers import SERVER_S

CUT_S, SILENT_S, SLOW_S, HALF_S = 3.0, 10.0, 6.0, 3.0
DELAY_S: Final = 0.2
Reach = Callable[[ProxiedLinks, str], Sequence[TcpProxy]]


async def postgres_cut(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_postgres, TcpProxy.cut, CUT_S)


async def postgres_slow(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_postgres, _slow, SLOW_S)


async def postgres_silent(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_postgres, TcpProxy.blackhole, SILENT_S)


async def postgres_half_closed(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_postgres, TcpProxy.half_close, HALF_S)


async def rabbitmq_cut(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_rabbitmq, TcpProxy.cut, CUT_S)


async def rabbitmq_slow(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_rabbitmq, _slow, SLOW_S)


async def rabbitmq_silent(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_rabbitmq, TcpProxy.blackhole, SILENT_S)


async def rabbitmq_half_closed(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_rabbitmq, TcpProxy.half_close, HALF_S)


async def provider_cut(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_provider, TcpProxy.cut, CUT_S)


async def provider_slow(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_provider, _slow, SLOW_S)


async def provider_silent(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_provider, TcpProxy.blackhole, SILENT_S)


async def provider_half_closed(round_: Round) -> float:
    return await _broken(round_, ProxiedLinks.to_provider, TcpProxy.half_close, HALF_S)


async def _broken(
    round_: Round, reach: Reach, break_: Callable[[TcpProxy], None], span_s: float
) -> float:
    assert round_.arena.links, "the fault needs linked=True"
    await round_.aim("queued", "sending")
    proxies = reach(round_.arena.links, round_.variant)
    for proxy in proxies:
        break_(proxy)
    await asyncio.sleep(span_s)
    for proxy in proxies:
        proxy.heal()
    return time.time()


def _slow(proxy: TcpProxy) -> None:
    proxy.slow(DELAY_S)


_HOW: Final = {
    "cut": f"are cut (reset, and refused for {CUT_S:g} s)",
    "slow": f"are slow for {SLOW_S:g} s: {DELAY_S * 1000:g} ms each way",
    "silent": f"forward nothing for {SILENT_S:g} s, then all bytes that were sent",
    "half_closed": f"send EOF to the client and still receive, for {HALF_S:g} s",
}
_STRIKES: Final = (
    postgres_cut,
    postgres_slow,
    postgres_silent,
    postgres_half_closed,
    rabbitmq_cut,
    rabbitmq_slow,
    rabbitmq_silent,
    rabbitmq_half_closed,
    provider_cut,
    provider_slow,
    provider_silent,
    provider_half_closed,
)


def _describe(name: str) -> str:
    server, _, how = name.partition("_")
    whose = (
        "the workers" if server == "provider" else "API and workers, the API, the workers, in turn"
    )
    return f"The connections to {server} of {whose} {_HOW[how]}."


WIRES: Final = tuple(
    Fault(
        strike=strike,
        timeout_s=SERVER_S,
        linked=True,
        variants=("workers",) if strike.__name__.startswith("provider") else SIDES,
        text=_describe(strike.__name__),
    )
    for strike in _STRIKES
)
