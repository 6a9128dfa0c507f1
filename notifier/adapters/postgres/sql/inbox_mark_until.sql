-- Marks unread entries of an inbox as read, some at a time.
-- Parameters: $1 tenant, $2 mode, $3 user, $4 the instant until which they were created, $5 the
-- maximum of entries.
-- Returns: how many were unread; others may have marked some of them meanwhile. Repeating it continues
-- with the next ones.
WITH unread AS MATERIALIZED (
    SELECT id FROM inbox_entries
    WHERE tenant = $1 AND mode = $2 AND user_id = $3 AND read_at IS NULL AND created_at <= $4
    ORDER BY created_at DESC, id DESC LIMIT $5
), found AS (
    SELECT id FROM inbox_entries
    WHERE id = ANY (ARRAY(SELECT id FROM unread))
    ORDER BY id
    FOR UPDATE
), marked AS (
    UPDATE inbox_entries SET read_at = now(), changed = pg_current_xact_id()
    WHERE id = ANY (ARRAY(SELECT id FROM found)) AND read_at IS NULL
)
SELECT count(*) AS unread FROM unread
