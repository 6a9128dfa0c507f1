"""The status of notifications as SQL of the harness.

It is written apart from the product's reader, because the judges of tests and measurements use it.
"""

from __future__ import annotations

from typing import Final

UNCLAIMED: Final = "00000000-0000-0000-0000-000000000000"
"""`claimed_by` of a row that is not claimed."""

_STATUSES: Final = """
    WITH statuses AS NOT MATERIALIZED (
        SELECT n.id, n.queue, e.reason,
               CASE WHEN l.id IS NOT NULL AND e.id IS NOT NULL THEN 'live and ended'
                    WHEN l.claimed_by <> '00000000-0000-0000-0000-000000000000' THEN 'sending'
                    WHEN l.due_at > now() AND l.class = 2 THEN 'retrying'
                    WHEN l.due_at > now() THEN 'scheduled'
                    WHEN l.id IS NOT NULL THEN 'queued'
                    WHEN e.id IS NOT NULL THEN e.status::text
                    WHEN a.is_accepted THEN 'sent'
                    ELSE 'lost' END AS status,
               coalesce(l.tries, e.tries, a.tries, 0)::integer AS tries,
               extract(epoch FROM coalesce(e.at, a.finished_at, n.created_at))::float8 AS at,
               a.attempts, coalesce(a.is_ambiguous, false) AS is_ambiguous,
               coalesce(a.is_late, false) AS is_late
        FROM notifications n
        LEFT JOIN live l ON l.id = n.id
        LEFT JOIN ends e ON e.id = n.id
        CROSS JOIN LATERAL (
            SELECT count(*)::integer AS attempts, max(tries) AS tries,
                   max(finished_at) AS finished_at, bool_or(outcome = 'accepted') AS is_accepted,
                   bool_or(outcome = 'ambiguous') AS is_ambiguous, bool_or(late) AS is_late
            FROM attempts WHERE attempts.id = n.id
        ) a
    )"""


def on_statuses(sql: str) -> str:
    """Return the query with a table `statuses`, in which every notification has a row.

    `status` is as in the API, or `lost` (no row in `live` or `ends`, no accepted attempt), or
    `live and ended`, which must not happen either. A row past its time to live waits until it is
    ended. `at`, in seconds since the epoch, is when the notification ended, or else when the last
    call of its attempts did. `reason` is that of its end.
    """
    return f"{_STATUSES}\n{sql}"
