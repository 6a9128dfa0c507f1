"""The allocator: divides one worker's floating consumers over its queues. Pure.

`entitlement.allocate` computes how many consumers each queue should have, `moves.plan_moves` which
consumers move now, without oscillation. Each queue has reserved consumers too, which never move:
caps count them, entitlements and moves do not.
"""
