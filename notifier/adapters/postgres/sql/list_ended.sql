-- Finds notifications that ended other than by being sent, newest first.
-- Parameters: $1 to $4 as in list_notifications.sql, $5 the status, $6 to $8 reasons, providers and
-- codes, one of which each must match (null: any).
-- Returns: as list_notifications.sql.
-- (The comparisons of pairs and the order leave no other index than that of the status. Else a rare
-- status might be looked for among all rows in the order of the primary key.)
WITH candidate AS MATERIALIZED (
    SELECT id, queue, reason, provider, code FROM ends
    WHERE (status, id) >= ($5::text::notification_status, $1)
      AND (status, id) <= ($5::text::notification_status, $2) AND id BETWEEN $1 AND $2
    ORDER BY status DESC, id DESC LIMIT $3
)
SELECT ARRAY(
           SELECT id FROM candidate
           WHERE queue LIKE ANY ($4::text[])
             AND ($6::text[] IS NULL OR reason = ANY ($6))
             AND ($7::text[] IS NULL OR provider = ANY ($7))
             AND ($8::text[] IS NULL OR code = ANY ($8))
           ORDER BY id DESC
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
