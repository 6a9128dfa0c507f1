"""The campaign guard: which tags are paused because providers refuse too much of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

REMEMBERED: Final = timedelta(days=1)
"""For how long the guard knows that it paused a tag."""
SHARED_DAYS: Final = 30
"""A tag that another tenant has used within so many days is not paused."""


class GuardRule(NamedTuple):
    """When a tag is paused.

    `refused_share` of at least `least_results` results within `window` were refused. A share of 0:
    never.
    """

    refused_share: float
    least_results: int
    window: timedelta


class TagResults(NamedTuple):
    """The results of a tag within the window, or since the guard judged it last.

    `sent` are those that a provider took, `refused` those that it refused, and `undelivered` those
    of the sent ones that a receipt called undelivered. `before` is the share at which the guard
    judged the tag within REMEMBERED, None if it did not.
    """

    tag: str
    sent: int
    refused: int
    undelivered: int
    before: float | None

    @property
    def results(self) -> int:
        """How many results there are."""
        return self.sent + self.refused

    @property
    def bad(self) -> int:
        """How many of them say that the recipient got nothing."""
        return self.refused + self.undelivered

    @property
    def share(self) -> float:
        """The share of those."""
        return self.bad / self.results if self.results else 0.0


def is_too_bad(tag: TagResults, rule: GuardRule) -> bool:
    """Whether a tag is to be paused.

    Whoever resumed a tag that the guard had paused knows its results. It is paused again only if
    what came after that is worse: the share of the rest has halved.
    """
    if not rule.refused_share or tag.results < rule.least_results or tag.share < rule.refused_share:
        return False
    if tag.before is None:
        return True
    return tag.share > tag.before and tag.share >= (1 + tag.before) / 2


def note_of(tag: TagResults, rule: GuardRule) -> str:
    """Return what the pause says of its reason."""
    minutes = rule.window / timedelta(minutes=1)
    undelivered = f", {tag.undelivered:,} undelivered" if tag.undelivered else ""
    return (
        f"{tag.share:.0%} of {tag.results:,} results within {minutes:g} min were bad: "
        f"{tag.refused:,} refused{undelivered}; guard.refused_share is {rule.refused_share:.0%}"
    )
