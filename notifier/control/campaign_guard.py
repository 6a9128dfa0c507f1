"""The campaign guard: pauses a tag of which providers refuse too much, and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from notifier.domain.campaign_guard import GuardRule
    from notifier.ports.campaign_guard import JudgedTag, TagGuard
    from notifier.ports.observer import GuardObserver

JUDGE_INTERVAL_S: Final = 2.0

log = structlog.get_logger(__name__)


class CampaignGuard:
    """Every process runs one if the settings ask for it; a tag is paused once."""

    def __init__(self, *, guard: TagGuard, rule: GuardRule, observer: GuardObserver) -> None:
        self._guard = guard
        self._rule = rule
        self._observer = observer

    async def run_once(self) -> int:
        """Judge all tags; returns how many were paused. A failure is logged."""
        paused = 0
        try:
            for judged in await self._guard.judge(self._rule):
                self._report(judged)
                paused += judged.is_paused
        except StoreError as error:
            log.warning("campaign_guard_failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 the guard may not end a process
            log.warning("campaign_guard_failed", reason=type(error).__name__)
        return paused

    def _report(self, judged: JudgedTag) -> None:
        results = judged.results
        if not judged.is_paused:
            log.warning(
                "shared_tag_not_paused",
                tag=results.tag,
                results=results.results,
                refused=results.refused,
                undelivered=results.undelivered,
            )
            return
        self._observer.tag_paused()
        log.warning(
            "tag_paused",
            tag=results.tag,
            results=results.results,
            refused=results.refused,
            undelivered=results.undelivered,
        )
