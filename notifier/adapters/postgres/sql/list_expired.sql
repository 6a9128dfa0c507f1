-- Finds expired notifications, newest first: those that the sweeper has ended, and unclaimed rows
-- whose time is over and that it will end within a minute.
-- Parameters: $1 to $4 as in list_notifications.sql, $5 to $7 as $6 to $8 in list_ended.sql.
-- Returns: as list_notifications.sql.
-- (The comparisons of pairs: see list_ended.sql.)
WITH overdue AS MATERIALIZED (
    SELECT id, queue, '' AS provider, '' AS code FROM live
    WHERE expires_at <= now() AND claimed_by = '00000000-0000-0000-0000-000000000000'
), candidate AS MATERIALIZED (
    (SELECT id, queue, provider, code FROM ends
     WHERE (status, id) >= ('expired', $1) AND (status, id) <= ('expired', $2)
       AND id BETWEEN $1 AND $2
     ORDER BY status DESC, id DESC LIMIT $3)
    UNION ALL
    (SELECT id, queue, provider, code FROM overdue WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT $3)
    ORDER BY id DESC LIMIT $3
)
SELECT ARRAY(
           SELECT id FROM candidate
           WHERE queue LIKE ANY ($4::text[])
             AND ($5::text[] IS NULL OR 'ttl' = ANY ($5))
             AND ($6::text[] IS NULL OR provider = ANY ($6))
             AND ($7::text[] IS NULL OR code = ANY ($7))
           ORDER BY id DESC
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
