-- Finds notifications by their lookups, newest first.
-- Parameters: $1 to $5 as in list_notifications.sql, $6 hashes of which a notification has one, $7
-- more hashes and $8 their groups, of each of which it has one, $9 the number of groups; $10 to $13
-- statuses, reasons, providers and codes, one of which each must match (null: any).
-- Returns: as list_notifications.sql.
-- (A look-up for each hash reads the index in the order of the ids and stops at the limit. LIMIT 1:
-- see read_notifications.sql.)
WITH candidate AS MATERIALIZED (
    SELECT k.id
    FROM unnest($6::uuid[]) AS h (hash)
    CROSS JOIN LATERAL (SELECT id FROM lookups WHERE hash = h.hash AND id BETWEEN $2 AND $3
                        ORDER BY id DESC LIMIT $5) k
    ORDER BY k.id DESC LIMIT $5
)
SELECT ARRAY(
           SELECT DISTINCT c.id FROM candidate c
           CROSS JOIN LATERAL (SELECT queue FROM notifications
                               WHERE id = c.id AND id BETWEEN $2 AND $3 LIMIT 1) n
           WHERE n.queue LIKE ANY ($1::text[])
             AND ($9 = 0 OR $9 = (
                 SELECT count(DISTINCT g.number)
                 FROM unnest($7::uuid[], $8::integer[]) AS g (hash, number)
                 CROSS JOIN LATERAL (SELECT id FROM lookups
                                     WHERE hash = g.hash AND id = c.id LIMIT 1) k))
             AND ($10::text[] IS NULL OR EXISTS (
                 SELECT FROM (SELECT c.id) one
                 LEFT JOIN LATERAL (SELECT * FROM live WHERE id = one.id LIMIT 1) l ON true
                 LEFT JOIN LATERAL (SELECT * FROM ends WHERE id = one.id
                                    AND id BETWEEN $2 AND $3 LIMIT 1) e ON true
                 LEFT JOIN LATERAL (SELECT * FROM attempts WHERE id = one.id
                                    AND id BETWEEN $2 AND $3 AND outcome = 'accepted'
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
                 WHERE s.status = ANY ($10)
                   AND ($11::text[] IS NULL
                        OR CASE WHEN s.status = 'expired' THEN 'ttl' ELSE e.reason END = ANY ($11))
                   AND ($12::text[] IS NULL OR coalesce(e.provider, a.provider) = ANY ($12))
                   AND ($13::text[] IS NULL OR coalesce(e.code, a.code) = ANY ($13))))
           ORDER BY c.id DESC LIMIT $4
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
