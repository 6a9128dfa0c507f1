-- Finds notifications that ended other than by being sent, newest first.
-- Parameters: $1 to $5 as in list_notifications.sql, $6 the status, $7 to $9 reasons, providers and
-- codes, one of which each must match (null: any).
-- Returns: as list_notifications.sql.
WITH candidate AS MATERIALIZED (
    SELECT id, queue, reason, provider, code FROM ends
    WHERE status = $6::text::notification_status AND id BETWEEN $2 AND $3
    ORDER BY id DESC LIMIT $5
)
SELECT ARRAY(
           SELECT id FROM candidate
           WHERE queue LIKE ANY ($1::text[])
             AND ($7::text[] IS NULL OR reason = ANY ($7))
             AND ($8::text[] IS NULL OR provider = ANY ($8))
             AND ($9::text[] IS NULL OR code = ANY ($9))
           ORDER BY id DESC LIMIT $4
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
