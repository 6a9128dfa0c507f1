"""The links between our processes and what they stand on are cut, slowed, silent, half closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from harness.tcp_proxy import TcpProxy
from tests.chaos.links import SIDES, StoreConnections
from tests.chaos.round import Fault, Round
from tests.chaos.servers import SERVER_S

CUT_S, DEAD_AFTER_S, SLOW_S, HALF_S = 3.0, 10.0, 6.0, 3.0
DELAY_S: Final = 0.2
Reach = Callable[[StoreConnections, str], Sequence[TcpProxy]]


async def postgres_cut(this: Round) -> float:
    return await _broken(this, StoreConnections.to_postgres, TcpProxy.cut, CUT_S)


async def postgres_slow(this: Round) -> float:
    return await _broken(this, StoreConnections.to_postgres, _slow, SLOW_S)


async def postgres_silent(this: Round) -> float:
    return await _broken(this, StoreConnections.to_postgres, TcpProxy.blackhole, DEAD_AFTER_S)


async def postgres_half_closed(this: Round) -> float:
    return await _broken(this, StoreConnections.to_postgres, TcpProxy.half_close, HALF_S)


async def rabbitmq_cut(this: Round) -> float:
    return await _broken(this, StoreConnections.to_rabbitmq, TcpProxy.cut, CUT_S)


async def rabbitmq_slow(this: Round) -> float:
    return await _broken(this, StoreConnections.to_rabbitmq, _slow, SLOW_S)


async def rabbitmq_silent(this: Round) -> float:
    return await _broken(this, StoreConnections.to_rabbitmq, TcpProxy.blackhole, DEAD_AFTER_S)


async def rabbitmq_half_closed(this: Round) -> float:
    return await _broken(this, StoreConnections.to_rabbitmq, TcpProxy.half_close, HALF_S)


async def provider_cut(this: Round) -> float:
    return await _broken(this, StoreConnections.to_provider, TcpProxy.cut, CUT_S)


async def provider_slow(this: Round) -> float:
    return await _broken(this, StoreConnections.to_provider, _slow, SLOW_S)


async def provider_silent(this: Round) -> float:
    return await _broken(this, StoreConnections.to_provider, TcpProxy.blackhole, DEAD_AFTER_S)


async def provider_half_closed(this: Round) -> float:
    return await _broken(this, StoreConnections.to_provider, TcpProxy.half_close, HALF_S)


async def _broken(
    this: Round, reach: Reach, break_: Callable[[TcpProxy], None], span_s: float
) -> float:
    assert this.arena.links, "the fault needs linked=True"
    await this.aim("queued", "sending")
    proxies = reach(this.arena.links, this.variant)
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
    "silent": f"let nothing through for {DEAD_AFTER_S:g} s, then all that was sent",
    "half_closed": f"are half closed: they say their end, and listen, for {HALF_S:g} s",
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


def _says(name: str) -> str:
    server, _, how = name.partition("_")
    whose = (
        "the workers alone" if server == "provider" else "API and workers, API, workers by turns"
    )
    return f"The links to {server} of {whose} {_HOW[how]}."


WIRES: Final = tuple(
    Fault(
        strike=strike,
        within_s=SERVER_S,
        linked=True,
        variants=("workers",) if strike.__name__.startswith("provider") else SIDES,
        says=_says(strike.__name__),
    )
    for strike in _STRIKES
)
