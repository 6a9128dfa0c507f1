"""All faults by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.chaos.cluster import CLUSTER
from tests.chaos.commits import COMMITS
from tests.chaos.leases import LEASES
from tests.chaos.messages import MESSAGES
from tests.chaos.operations import OPERATIONS
from tests.chaos.processes import PROCESSES
from tests.chaos.refused import REFUSED
from tests.chaos.revoked import REVOKED
from tests.chaos.round import Fault
from tests.chaos.servers import SERVERS
from tests.chaos.steps import STEPS
from tests.chaos.upgrade import UPGRADE
from tests.chaos.webhooks import WEBHOOKS
from tests.chaos.wires import WIRES

ALL: Final = (
    *PROCESSES,
    *UPGRADE,
    *LEASES,
    *COMMITS,
    *MESSAGES,
    *REFUSED,
    *REVOKED,
    *OPERATIONS,
    *WEBHOOKS,
    *STEPS,
    *SERVERS,
    *WIRES,
    *CLUSTER,
)
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in ALL}
