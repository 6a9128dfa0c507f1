-- Removes entries of erased users from their inboxes, some at a time.
-- Parameters: $1 the tenants, $2 the modes and $3 the users of the inboxes, $4 the instant after which
-- entries may not have been added, $5 the maximum of entries.
-- Returns: how many were removed. Repeating it continues with the next ones.
WITH removed AS (
    DELETE FROM inbox_entries
    WHERE id = ANY (ARRAY(
        SELECT e.id FROM unnest($1::text[], $2::text[], $3::text[]) AS t (tenant, mode, user_id)
        CROSS JOIN LATERAL (
            SELECT id FROM inbox_entries
            WHERE tenant = t.tenant AND mode = t.mode AND user_id = t.user_id AND created_at <= $4
            LIMIT $5
        ) e
        LIMIT $5))
    RETURNING id
)
SELECT count(*) FROM removed
