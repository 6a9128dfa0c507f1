"""The allocator: divides one worker's floating consumers over its queues. Pure.

`entitlement.allocate` computes what each queue should have, `moves.plan_moves` how to get there
from what it has without oscillation. Each queue has reserved consumers too, which never move: caps
count them, entitlements and moves do not.
"""
