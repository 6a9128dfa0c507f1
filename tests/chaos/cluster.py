"""Faults of a RabbitMQ cluster with three nodes: a lost leader, a partitioned node."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from harness.rabbitmq import ClusterPeer, RabbitmqNode
from notifier.embedded.process import run_steps_async
from notifier.embedded.rabbitmq import RabbitmqInstall
from notifier.embedded.server import opened
from tests.chaos.round import Fault, Round
from tests.chaos.servers import SERVER_S

SIZE: Final = 3
CUT_OFF_S: Final = 12.0
ANOTHER, OURS = "a node that we do not use", "the node that we use"
CUT: Final = "erlang:set_cookie({node}, chaos), erlang:disconnect_node({node})"
HEAL: Final = "erlang:set_cookie({node}, erlang:get_cookie())"
"""A node with another cookie cannot connect; this partitions a node without a firewall."""
SPREAD: Final = 'rabbit_amqqueue:rebalance(quorum, ".*", ".*").'


@asynccontextmanager
async def open_cluster(
    folder: Path, install: RabbitmqInstall
) -> AsyncIterator[Sequence[RabbitmqNode]]:
    """Run a cluster of three nodes; Notifier connects to the first."""
    async with AsyncExitStack() as exits:
        one = RabbitmqNode(folder / "0", install=install, keep=False)
        first = await exits.enter_async_context(opened(one))
        nodes = [first]
        for number in range(1, SIZE):
            node = ClusterPeer(folder / str(number), install=install, first=first)
            nodes.append(await exits.enter_async_context(opened(node)))
            await node.join()
        yield nodes


async def leader_lost(round_: Round) -> float:
    """Kill a node that leads queues. Recovery counts from the kill: the others have a majority."""
    doomed = await _most_leading(round_)
    await round_.aim("queued", "sending")
    await run_steps_async(doomed.killing())
    killed_at = time.time()
    await asyncio.sleep(CUT_OFF_S)
    await run_steps_async(doomed.starting())
    return killed_at


async def _most_leading(round_: Round) -> RabbitmqNode:
    """Return the node that leads most queues, among those Notifier is not connected to."""
    first, *others = round_.arena.stack.nodes
    await first.control("eval", SPREAD)
    listed = await first.control(
        "list_queues", "-p", round_.arena.place.name, "leader", "--formatter", "json", "--quiet"
    )
    leads = Counter(str(row["leader"]) for row in json.loads(listed))
    doomed = max(others, key=lambda node: leads[node.name])
    assert leads[doomed.name], f"the leaders are {dict(leads)}"
    return doomed


async def minority_cut_off(round_: Round) -> float:
    """Partition one node, which pauses itself until it sees the others again."""
    nodes = round_.arena.stack.nodes
    lone = nodes[0] if round_.variant == OURS else nodes[1]
    others = [node for node in nodes if node is not lone]
    await round_.aim("queued", "sending")
    await _eval_on(lone, others, CUT)
    await asyncio.sleep(CUT_OFF_S)
    await _eval_on(lone, others, HEAL)
    return time.time()


async def _eval_on(lone: RabbitmqNode, others: Sequence[RabbitmqNode], expression: str) -> None:
    steps = ", ".join(expression.format(node=f"'{other.name}'") for other in others)
    await lone.control("eval", f"{steps}.")


CLUSTER: Final = (
    Fault(
        strike=leader_lost,
        timeout_s=SERVER_S,
        on_cluster=True,
        text="One of three RabbitMQ nodes, one that leads queues, is killed (-9) for 12 s.",
    ),
    Fault(
        strike=minority_cut_off,
        timeout_s=SERVER_S,
        on_cluster=True,
        variants=(ANOTHER, OURS),
        text="One of three RabbitMQ nodes is partitioned from the others for 12 s: in turn a node "
        "that Notifier does not use and the node that it uses.",
    ),
)
