"""Client of Notifier: sends notifications, follows them, and verifies webhooks."""

from __future__ import annotations

from notifier_client.async_client import AsyncNotifier
from notifier_client.client import Notifier
from notifier_client.documents import (
    FINAL_STATUSES,
    Accepted,
    Ahead,
    Attempt,
    Blob,
    Blocker,
    Expected,
    Explanation,
    FallbackState,
    Notification,
    Receipt,
    Result,
)
from notifier_client.errors import (
    FieldError,
    InvalidRequest,
    NotFound,
    NotifierError,
    Problem,
    RateLimited,
    Unavailable,
    WrongStatus,
)
from notifier_client.filters import Filters
from notifier_client.submits import Attachment, Fallback, Submit, SubmitFields
from notifier_client.version import __version__
from notifier_client.webhooks import (
    InvalidSignature,
    WebhookEvent,
    WebhookVerifier,
    verify_webhook,
)

__all__ = [
    "FINAL_STATUSES",
    "Accepted",
    "Ahead",
    "AsyncNotifier",
    "Attachment",
    "Attempt",
    "Blob",
    "Blocker",
    "Expected",
    "Explanation",
    "Fallback",
    "FallbackState",
    "FieldError",
    "Filters",
    "InvalidRequest",
    "InvalidSignature",
    "NotFound",
    "Notification",
    "Notifier",
    "NotifierError",
    "Problem",
    "RateLimited",
    "Receipt",
    "Result",
    "Submit",
    "SubmitFields",
    "Unavailable",
    "WebhookEvent",
    "WebhookVerifier",
    "WrongStatus",
    "__version__",
    "verify_webhook",
]
