-- Counts the unread entries of inboxes.
-- Parameters: $1 the tenants, $2 the modes and $3 the users of the inboxes, $4 as many are counted.
-- Returns: one row per inbox, in their order.
-- (The order of the entries keeps Postgres from reading all of an inbox with a bitmap.)
SELECT (SELECT count(*) FROM (
            SELECT FROM inbox_entries e
            WHERE e.tenant = t.tenant AND e.mode = t.mode AND e.user_id = t.user_id
              AND e.read_at IS NULL AND e.expires_at > now()
            ORDER BY e.created_at DESC, e.id DESC LIMIT $4) AS unread) AS unread
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS t (tenant, mode, user_id, number)
ORDER BY number
