-- Finds sent notifications, newest first: those with an accepted attempt that neither wait, nor are
-- being sent, nor have ended otherwise.
-- Parameters: $1 to $5 as in list_notifications.sql, $6 and $7 providers and codes, one of which
-- each the accepted attempt must match (null: any).
-- Returns: as list_notifications.sql. The candidates are attempts: the last
-- notification may have more of them, but it is judged whole.
-- (LIMIT 1: see read_notifications.sql.)
WITH candidate AS MATERIALIZED (
    SELECT id FROM attempts WHERE id BETWEEN $2 AND $3 ORDER BY id DESC, claim DESC LIMIT $5
)
SELECT ARRAY(
           SELECT c.id FROM (SELECT DISTINCT id FROM candidate) c
           CROSS JOIN LATERAL (SELECT id FROM notifications WHERE id = c.id
                               AND id BETWEEN $2 AND $3 AND queue LIKE ANY ($1::text[]) LIMIT 1) n
           CROSS JOIN LATERAL (SELECT id FROM attempts WHERE id = c.id AND id BETWEEN $2 AND $3
                               AND outcome = 'accepted'
                               AND ($6::text[] IS NULL OR provider = ANY ($6))
                               AND ($7::text[] IS NULL OR code = ANY ($7)) LIMIT 1) a
           LEFT JOIN LATERAL (SELECT id FROM live WHERE id = c.id LIMIT 1) l ON true
           LEFT JOIN LATERAL (SELECT id FROM ends WHERE id = c.id AND id BETWEEN $2 AND $3
                              LIMIT 1) e ON true
           WHERE l.id IS NULL AND e.id IS NULL
           ORDER BY c.id DESC LIMIT $4
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
