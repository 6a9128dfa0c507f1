-- Finds expired notifications, newest first: those that the sweeper has ended, and unclaimed rows
-- whose time is over and that it will end within a minute.
-- Parameters and result: as in list_notifications.sql.
WITH overdue AS MATERIALIZED (
    SELECT id, queue FROM live
    WHERE expires_at <= now() AND claimed_by = '00000000-0000-0000-0000-000000000000'
), candidate AS MATERIALIZED (
    (SELECT id, queue FROM ends WHERE status = 'expired' AND id BETWEEN $2 AND $3
     ORDER BY id DESC LIMIT $5)
    UNION ALL
    (SELECT id, queue FROM overdue WHERE id BETWEEN $2 AND $3 ORDER BY id DESC LIMIT $5)
    ORDER BY id DESC LIMIT $5
)
SELECT ARRAY(SELECT id FROM candidate WHERE queue LIKE $1 ORDER BY id DESC LIMIT $4) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
