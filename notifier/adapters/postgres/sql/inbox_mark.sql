-- Marks entries of an inbox as read.
-- Parameters: $1 tenant, $2 mode, $3 user, $4 ids.
-- Repeating it changes nothing: an entry keeps the instant at which it was read first.
WITH found AS (
    SELECT id FROM inbox_entries
    WHERE id = ANY ($4::uuid[]) AND tenant = $1 AND mode = $2 AND user_id = $3 AND read_at IS NULL
    ORDER BY id
    FOR UPDATE
)
UPDATE inbox_entries SET read_at = now(), changed = pg_current_xact_id()
WHERE id = ANY (ARRAY(SELECT id FROM found)) AND read_at IS NULL
