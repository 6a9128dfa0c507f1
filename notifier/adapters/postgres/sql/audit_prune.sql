-- Removes old entries of the audit.
-- Parameters: $1 for how many days they are kept, $2 the maximum to remove.
-- Returns: one row per entry that was removed.
DELETE FROM audit WHERE id IN (
    SELECT id FROM audit
    WHERE id < uuid_at(now() - make_interval(days => $1)) AND at < now() - make_interval(days => $1)
    ORDER BY id LIMIT $2
)
RETURNING id
