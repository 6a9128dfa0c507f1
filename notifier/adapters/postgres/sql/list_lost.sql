-- Finds lost notifications, newest first: neither waiting, nor being sent, nor ended, nor sent.
-- Parameters and result: as in list_notifications.sql.
-- (LIMIT 1: see read_notifications.sql. Most were sent: the other tables are looked into for the
-- rest only.)
WITH candidate AS MATERIALIZED (
    SELECT id, queue FROM notifications WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT $3
)
SELECT ARRAY(
           SELECT c.id FROM candidate c
           LEFT JOIN LATERAL (SELECT id FROM attempts WHERE id = c.id AND id BETWEEN $1 AND $2
                              AND outcome = 'accepted' LIMIT 1) a ON true
           LEFT JOIN LATERAL (SELECT id FROM live WHERE id = c.id AND a.id IS NULL
                              LIMIT 1) l ON true
           LEFT JOIN LATERAL (SELECT id FROM ends WHERE id = c.id AND id BETWEEN $1 AND $2
                              AND a.id IS NULL AND l.id IS NULL LIMIT 1) e ON true
           WHERE c.queue LIKE ANY ($4::text[]) AND l.id IS NULL AND e.id IS NULL AND a.id IS NULL
           ORDER BY c.id DESC
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
