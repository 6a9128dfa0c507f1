-- Looks for lost notifications among the newest of the last 24 hours: neither waiting, nor being
-- sent, nor ended, nor sent.
-- Parameters: $1 how many to look at.
-- Returns: one row: how many were `checked`, how many of them are `lost`, and the `newest` of these.
-- (LIMIT 1: see read_notifications.sql.)
SELECT count(*)::integer AS checked,
       count(*) FILTER (WHERE is_lost)::integer AS lost,
       (array_agg(id ORDER BY id DESC) FILTER (WHERE is_lost))[1] AS newest
FROM (
    SELECT n.id, l.id IS NULL AND e.id IS NULL AND a.id IS NULL AS is_lost
    FROM (
        SELECT id FROM notifications WHERE id >= uuid_at(now() - interval '24 hours')
        ORDER BY id DESC LIMIT $1
    ) n
    LEFT JOIN LATERAL (SELECT id FROM live WHERE id = n.id LIMIT 1) l ON true
    LEFT JOIN LATERAL (SELECT id FROM ends WHERE id = n.id LIMIT 1) e ON true
    LEFT JOIN LATERAL (SELECT id FROM attempts WHERE id = n.id AND outcome = 'accepted' LIMIT 1) a
        ON true
) newest
