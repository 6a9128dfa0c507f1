-- What the relays of dead processes took last, and may have died over before it was published: those
-- whose counter still stands where the caller saw it stand for too long ($1 ids, $2 counters), in the
-- queues $3. What they took over 15 s before their last beat they had published, or taken back. One
-- that takes more over 5 s after it has no heartbeat and lives: it counted as dead after 6 s, and what
-- it takes then must not go round. The claim stays: a copy of a pointer that did arrive is harmless.
WITH lost AS (
    SELECT taken.id
    FROM unnest($1::uuid[], $2::bigint[]) AS silent (id, beat)
    JOIN workers w USING (id, beat)
    CROSS JOIN unnest($3::text[]) AS of (queue)
    CROSS JOIN LATERAL (
        SELECT n.id FROM notifications n
        WHERE n.queue = of.queue AND n.status = 'queued' AND n.due_at IS NULL
          AND n.published_at BETWEEN w.beat_at - interval '15 seconds'
                                 AND w.beat_at + interval '5 seconds'
          AND n.published_by = w.id
        LIMIT 500
        FOR UPDATE SKIP LOCKED
    ) taken
    LIMIT 500
)
UPDATE notifications n SET
    published_at = NULL, due_at = n.ready_at, is_retry = false, rescues = n.rescues + 1,
    updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM lost)) AND n.status::text = 'queued' AND n.due_at IS NULL
RETURNING n.queue
