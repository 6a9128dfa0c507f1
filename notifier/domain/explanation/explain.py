"""Makes the explanation of a notification from the facts, as its reader may see it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from notifier.domain.explanation.ahead import coarse
from notifier.domain.explanation.blockers import blockers_of
from notifier.domain.explanation.expected import expected_of
from notifier.domain.explanation.facts import Blocker, BlockerKind, Explanation

if TYPE_CHECKING:
    from notifier.domain.explanation.facts import Facts

OF_TENANT: Final = frozenset(
    {
        BlockerKind.SCHEDULED,
        BlockerKind.RETRY,
        BlockerKind.QUIET_HOURS,
        BlockerKind.BEHIND,
    }
)
"""What a tenant sees with its detail. The others' tell of operators, and of others' work."""


def explain(facts: Facts, *, is_for_tenant: bool) -> Explanation:
    """Return why a notification waits.

    A tenant sees others' volume with two digits, and no notes, authors and figures of the
    deployment.
    """
    if is_for_tenant:
        facts = replace(facts, ahead=coarse(facts.ahead))
    blockers = blockers_of(facts)
    return Explanation(
        subject=facts.row,
        blockers=[_for_tenant(blocker) for blocker in blockers] if is_for_tenant else blockers,
        ahead=facts.ahead,
        expected=expected_of(facts, blockers),
    )


def _for_tenant(blocker: Blocker) -> Blocker:
    return blocker if blocker.kind in OF_TENANT else replace(blocker, detail=None)
