-- Changes what a person decides of a webhook that this transaction has locked. One that is enabled
-- again, or has another URL, does not count as failing.
-- Parameters: $1 id, $2 URL, $3 events, $4 note, $5 status, $6 reason.
-- Returns: the row.
UPDATE webhooks SET
    url = $2, events = $3::text[], note = $4, status = $5, reason = $6,
    failing_since = CASE WHEN url = $2 AND status = $5 THEN failing_since END
WHERE id = $1
RETURNING *
