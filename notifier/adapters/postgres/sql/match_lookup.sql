-- Finds which notifications that were found by a lookup match a filter.
-- Parameters: $1 ids, the newest first, $2 and $3 the least and the greatest of them, $4 LIKE
-- patterns, one of which the queue's name matches (null: any), $5 groups of hashes (an array of
-- arrays), of each of which a notification has one, $6 the number of groups; $7 to $10 statuses,
-- reasons, providers and codes, one of which each must match (null: any), $11 the maximum of rows.
-- Returns: one row per notification that matches, in the order of $1.
-- (LIMIT 1: see read_notifications.sql. A table is looked into only if those before it leave the
-- answer open.)
SELECT c.id
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (id, number)
LEFT JOIN LATERAL (SELECT * FROM ends WHERE id = c.id AND id BETWEEN $2 AND $3
                   AND $7::text[] IS NOT NULL LIMIT 1) e ON true
LEFT JOIN LATERAL (SELECT * FROM live WHERE id = c.id AND e.id IS NULL
                   AND NOT $7 <@ ARRAY['failed', 'cancelled', 'suppressed', 'delivered', 'undelivered']
                   LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT * FROM attempts WHERE id = c.id AND id BETWEEN $2 AND $3
                   AND e.id IS NULL AND l.id IS NULL AND $7 && ARRAY['sent', 'lost'] AND outcome = 'accepted'
                   ORDER BY claim DESC LIMIT 1) a ON true
CROSS JOIN LATERAL (
    SELECT CASE WHEN l.claimed_by <> '00000000-0000-0000-0000-000000000000' THEN 'sending'
                WHEN l.expires_at <= now() THEN 'expired'
                WHEN l.due_at <= now() THEN 'queued'
                WHEN l.class = 2 THEN 'retrying'
                WHEN l.id IS NOT NULL THEN 'scheduled'
                WHEN e.id IS NOT NULL THEN e.status::text
                WHEN a.id IS NOT NULL THEN 'sent'
                ELSE 'lost' END AS status
) s
WHERE NOT EXISTS (
        SELECT FROM generate_series(1, $6) AS g (number)
        WHERE (SELECT id FROM lookups WHERE hash = ANY (($5::uuid[])[g.number:g.number])
               AND id = c.id AND id BETWEEN $2 AND $3 LIMIT 1) IS NULL)
  AND ($4::text[] IS NULL OR (SELECT queue LIKE ANY ($4) FROM notifications
                              WHERE id = c.id AND id BETWEEN $2 AND $3))
  AND ($7 IS NULL OR s.status = ANY ($7))
  AND ($8::text[] IS NULL OR CASE WHEN s.status = 'expired' THEN 'ttl' ELSE e.reason END = ANY ($8))
  AND ($9::text[] IS NULL OR coalesce(e.provider, a.provider) = ANY ($9))
  AND ($10::text[] IS NULL OR coalesce(e.code, a.code) = ANY ($10))
ORDER BY c.number LIMIT $11
