-- Finds sent notifications, newest first: those with an accepted attempt that neither wait, nor are
-- being sent, nor have ended otherwise.
-- Parameters: $1 to $4 as in list_notifications.sql, $5 and $6 providers and codes, one of which
-- each the accepted attempt must match (null: any).
-- Returns: as list_notifications.sql. The candidates are attempts, all of each notification: there
-- may be a few more than $3.
-- (LIMIT 1: see read_notifications.sql.)
WITH candidate AS MATERIALIZED (
    SELECT id, outcome, provider, code FROM attempts WHERE id BETWEEN $1 AND $2
    ORDER BY id DESC FETCH FIRST $3 ROWS WITH TIES
)
SELECT ARRAY(
           SELECT DISTINCT c.id FROM candidate c
           LEFT JOIN LATERAL (SELECT id FROM ends WHERE id = c.id AND id BETWEEN $1 AND $2
                              LIMIT 1) e ON true
           LEFT JOIN LATERAL (SELECT id FROM live WHERE id = c.id LIMIT 1) l ON true
           WHERE c.outcome = 'accepted' AND l.id IS NULL AND e.id IS NULL
             AND ($5::text[] IS NULL OR c.provider = ANY ($5))
             AND ($6::text[] IS NULL OR c.code = ANY ($6))
             AND ($4::text[] = '{%.%}' OR (SELECT queue LIKE ANY ($4) FROM notifications
                                           WHERE id = c.id AND id BETWEEN $1 AND $2))
           ORDER BY c.id DESC
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
