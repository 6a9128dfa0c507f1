"""Three RabbitMQ nodes on one host: one with leaders of queues is lost, one is cut off."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from notifier.embedded.process import run_steps_async
from notifier.embedded.rabbitmq import RabbitmqServer
from notifier.embedded.server import opened
from tests.chaos.round import Fault, Round
from tests.chaos.servers import SERVER_S

SIZE: Final = 3
CUT_OFF_S: Final = 12.0
ANOTHER, OURS = "a node that we do not use", "the node that we use"
CUT: Final = "erlang:set_cookie({node}, chaos), erlang:disconnect_node({node})"
MEND: Final = "erlang:set_cookie({node}, erlang:get_cookie())"
"""Whoever comes with another cookie is not let in; so a wire is cut without a firewall."""
SPREAD: Final = 'rabbit_amqqueue:rebalance(quorum, ".*", ".*").'


@asynccontextmanager
async def open_cluster(folder: Path) -> AsyncIterator[Sequence[RabbitmqServer]]:
    """The first is the one that Notifier is told of."""
    async with AsyncExitStack() as exits:
        first = await exits.enter_async_context(opened(RabbitmqServer(folder / "0", keep=False)))
        nodes = [first]
        for number in range(1, SIZE):
            node = RabbitmqServer(folder / str(number), beside=first)
            nodes.append(await exits.enter_async_context(opened(node)))
            await node.control("stop_app")
            await node.control("join_cluster", first.node)
            await node.control("start_app")
        yield nodes


async def leader_lost(this: Round) -> float:
    """Counted from the kill, for the others hold the majority."""
    doomed = await _most_leading(this)
    await this.aim("queued", "sending")
    await run_steps_async(doomed.killing())
    killed_at = time.time()
    await asyncio.sleep(CUT_OFF_S)
    await run_steps_async(doomed.starting())
    return killed_at


async def _most_leading(this: Round) -> RabbitmqServer:
    """The node that leads most queues, of those that Notifier is not connected to."""
    first, *others = this.arena.stack.nodes
    await first.control("eval", SPREAD)
    said = await first.control(
        "list_queues", "-p", this.arena.place.name, "leader", "--formatter", "json", "--quiet"
    )
    leads = Counter(str(row["leader"]) for row in json.loads(said))
    doomed = max(others, key=lambda node: leads[node.node])
    assert leads[doomed.node], f"the leaders are {dict(leads)}"
    return doomed


async def minority_cut_off(this: Round) -> float:
    """It pauses itself; it is back when it sees the others again."""
    nodes = this.arena.stack.nodes
    lone = nodes[0] if this.variant == OURS else nodes[1]
    others = [node for node in nodes if node is not lone]
    await this.aim("queued", "sending")
    await _tell(lone, others, CUT)
    await asyncio.sleep(CUT_OFF_S)
    await _tell(lone, others, MEND)
    return time.time()


async def _tell(lone: RabbitmqServer, others: Sequence[RabbitmqServer], words: str) -> None:
    steps = ", ".join(words.format(node=f"'{other.node}'") for other in others)
    await lone.control("eval", f"{steps}.")


CLUSTER: Final = (
    Fault(
        strike=leader_lost,
        within_s=SERVER_S,
        on_cluster=True,
        says="Of three RabbitMQ nodes one that leads queues is killed (-9) for 12 s.",
    ),
    Fault(
        strike=minority_cut_off,
        within_s=SERVER_S,
        on_cluster=True,
        variants=(ANOTHER, OURS),
        says="Of three RabbitMQ nodes one is cut off from the others for 12 s, by turns one that "
        "is not used and the one that is.",
    ),
)
