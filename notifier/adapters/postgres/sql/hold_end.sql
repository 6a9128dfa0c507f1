-- Ends a pause of a tag or tenant. An expired one is removed as well, but does not count.
-- Parameters: $1 kind, $2 name.
-- Returns: one row if a pause in force was ended; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    DELETE FROM holds WHERE kind = $1 AND name = $2
    RETURNING until IS NULL OR until > now() AS has_held
)
SELECT pg_notify('notifier_controls', '') FROM changed WHERE has_held
