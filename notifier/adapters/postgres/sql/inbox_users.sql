-- Reads whose entries are stored, each inbox once, in the order of tenant, mode and user.
-- Parameters: $1 tenant, $2 mode and $3 user after which it begins, $4 the maximum of rows.
-- Returns: one row per inbox.
WITH RECURSIVE users AS (
    (SELECT tenant, mode, user_id, 1 AS number FROM inbox_entries
     WHERE (tenant, mode, user_id) > ($1, $2, $3)
     ORDER BY tenant, mode, user_id LIMIT 1)
    UNION ALL
    SELECT n.tenant, n.mode, n.user_id, u.number + 1
    FROM users u
    CROSS JOIN LATERAL (
        SELECT tenant, mode, user_id FROM inbox_entries
        WHERE (tenant, mode, user_id) > (u.tenant, u.mode, u.user_id)
        ORDER BY tenant, mode, user_id LIMIT 1
    ) n
    WHERE u.number < $4
)
SELECT tenant, mode, user_id FROM users
