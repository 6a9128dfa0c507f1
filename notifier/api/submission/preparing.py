"""Makes of a submit the notification that is stored: checked, filled, its files found."""

from __future__ import annotations

from notifier.api.http.deadline import Deadline
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.rules import ApiRules
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.filling import TemplateFilling, Unfilled
from notifier.domain.credentials import Mode
from notifier.domain.notification import TEST_CHANNEL, NewNotification


def check_mode(mode: Mode, rules: ApiRules) -> None:
    """Raises RequestRefused for tests if the settings have no place for them."""
    if mode is Mode.TEST and not rules.test_channel:
        raise RequestRefused(
            ProblemType.SCOPE_MISSING.problem(
                f"Test keys submit nothing here: the settings have no channel {TEST_CHANNEL} "
                "with a provider of the type sandbox."
            )
        )


class SubmitPreparation:
    """Does with a submit all that is done before it is stored."""

    def __init__(self, *, rules: ApiRules, filling: TemplateFilling, blobs: SubmitBlobs) -> None:
        self._validator = SubmitValidator(rules)
        self._filling = filling
        self._blobs = blobs
        self._deadline_s = rules.request_deadline_s

    async def prepare(self, body: bytes, sender: Sender) -> NewNotification:
        """Return the notification, with the newest version of its template.

        Its files must be blobs, as in a batch. Raises InvalidNotification with all wrong fields,
        RequestRefused, and what the store and the renderer raise.
        """
        new = self._validator.validate(body, sender, number=0)
        if isinstance(new, Unfilled):
            new = (await self._filling.filled(new, Deadline(self._deadline_s))).new
        if faults := await self._blobs.keep([new], sender.tenants):
            raise faults[new.id]
        return new
