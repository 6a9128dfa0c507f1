-- Finds sent notifications, newest first: those with an accepted attempt that neither wait, nor are
-- being sent, nor have ended otherwise.
-- Parameters and result: as in list_notifications.sql. The candidates are attempts: the last
-- notification may have more of them, but it is judged whole.
-- (LIMIT 1: see read_notifications.sql.)
WITH candidate AS MATERIALIZED (
    SELECT id FROM attempts WHERE id BETWEEN $2 AND $3 ORDER BY id DESC, claim DESC LIMIT $5
)
SELECT ARRAY(
           SELECT c.id FROM (SELECT DISTINCT id FROM candidate) c
           CROSS JOIN LATERAL (SELECT id FROM notifications WHERE id = c.id
                               AND id BETWEEN $2 AND $3 AND queue LIKE $1 LIMIT 1) n
           CROSS JOIN LATERAL (SELECT id FROM attempts WHERE id = c.id AND id BETWEEN $2 AND $3
                               AND outcome = 'accepted' LIMIT 1) a
           LEFT JOIN LATERAL (SELECT id FROM live WHERE id = c.id LIMIT 1) l ON true
           LEFT JOIN LATERAL (SELECT id FROM ends WHERE id = c.id AND id BETWEEN $2 AND $3
                              LIMIT 1) e ON true
           WHERE l.id IS NULL AND e.id IS NULL
           ORDER BY c.id DESC LIMIT $4
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
