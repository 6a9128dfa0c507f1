-- Finds the next notifications whose contents may be old enough, in the order of their ids. An id that
-- is younger than 10 minutes is not read: one before it may still appear.
-- Parameters: $1 the id after which it begins, $2 for how many seconds contents are kept, $3 LIKE
-- patterns, one of which the queue's name matches, $4 the maximum of rows to read.
-- Returns: one row: the ids, how many rows were read, and the last id of them.
WITH chunk AS MATERIALIZED (
    SELECT id, queue LIKE ANY ($3::text[]) AND content <> '' AS has_content FROM notifications
    WHERE id > $1 AND id < uuid_at(now() - greatest($2::double precision, 600) * interval '1 second')
    ORDER BY id LIMIT $4
)
SELECT ARRAY(SELECT id FROM chunk WHERE has_content ORDER BY id) AS ids,
       (SELECT count(*) FROM chunk) AS count,
       (SELECT id FROM chunk ORDER BY id DESC LIMIT 1) AS last
