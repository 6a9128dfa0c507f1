"""Makes of a submit the notification that is stored: checked, filled, its files found."""

from __future__ import annotations

import msgspec

from notifier.api.http.deadline import Deadline
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.rules import ApiRules
from notifier.api.submission.fallback_field import needs_store, of_fallback, with_version
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.filling import TemplateFilling, Unfilled
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import TEST_CHANNEL, NewNotification
from notifier.domain.tenants import KnownTenants


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

    async def prepare(
        self, body: bytes, sender: Sender, until: Deadline | None = None
    ) -> NewNotification:
        """Return the notification, with the newest version of its template.

        Its files must be blobs, as in a batch. Raises InvalidNotification with all wrong fields,
        RequestRefused, and what the store and the renderer raise. `until` is the end of the request
        that it belongs to.
        """
        until = until or Deadline(self._deadline_s)
        new = self._validator.validate(body, sender, number=0)
        if isinstance(new, Unfilled):
            new = (await self._filling.filled(new, until)).new
        if faults := await self._blobs.keep([new], sender.tenants):
            raise faults[new.id]
        return await self.with_fallback(new, sender.tenants, until)

    async def with_fallback(
        self, new: NewNotification, tenants: KnownTenants, until: Deadline
    ) -> NewNotification:
        """Return a notification with the newest version of its fallback's template.

        Raises as `prepare`, for fields of the fallback.
        """
        fallback = new.fallback
        if fallback is None or not needs_store(fallback):
            return new
        sender = Sender(new.tenant, new.mode, tenants)
        try:
            second = await self.prepare(fallback.submit, sender, until)
        except InvalidNotification as error:
            raise InvalidNotification.of(list(of_fallback(error))) from error
        if second.template is None:
            return new
        fallback = with_version(fallback, second.template)
        return msgspec.structs.replace(new, fallback=fallback)
