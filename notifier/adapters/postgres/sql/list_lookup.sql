-- Finds notifications by their lookups, newest first. What else they must match is in match_lookup.sql.
-- Parameters: $1 to $3 as in list_notifications.sql, $4 hashes of which a notification has one.
-- Returns: as list_notifications.sql: `ids` are those of all candidates.
-- (A look-up for each hash reads the index in the order of the ids and stops at the limit.)
WITH candidate AS MATERIALIZED (
    SELECT DISTINCT k.id
    FROM unnest($4::uuid[]) AS h (hash)
    CROSS JOIN LATERAL (SELECT id FROM lookups WHERE hash = h.hash AND id BETWEEN $1 AND $2
                        ORDER BY id DESC LIMIT $3) k
    ORDER BY k.id DESC LIMIT $3
)
SELECT ARRAY(SELECT id FROM candidate ORDER BY id DESC) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
