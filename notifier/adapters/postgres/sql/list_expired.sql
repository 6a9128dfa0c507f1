-- Finds expired notifications, newest first: those that the sweeper has ended, and unclaimed rows
-- whose time is over and that it will end within a minute.
-- Parameters: $1 to $5 as in list_notifications.sql, $6 to $8 as $7 to $9 in list_ended.sql.
-- Returns: as list_notifications.sql.
WITH overdue AS MATERIALIZED (
    SELECT id, queue, '' AS provider, '' AS code FROM live
    WHERE expires_at <= now() AND claimed_by = '00000000-0000-0000-0000-000000000000'
), candidate AS MATERIALIZED (
    (SELECT id, queue, provider, code FROM ends WHERE status = 'expired' AND id BETWEEN $2 AND $3
     ORDER BY id DESC LIMIT $5)
    UNION ALL
    (SELECT id, queue, provider, code FROM overdue WHERE id BETWEEN $2 AND $3 ORDER BY id DESC LIMIT $5)
    ORDER BY id DESC LIMIT $5
)
SELECT ARRAY(
           SELECT id FROM candidate
           WHERE queue LIKE ANY ($1::text[])
             AND ($6::text[] IS NULL OR 'ttl' = ANY ($6))
             AND ($7::text[] IS NULL OR provider = ANY ($7))
             AND ($8::text[] IS NULL OR code = ANY ($8))
           ORDER BY id DESC LIMIT $4
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
