-- Makes due again the rows that the relays of dead processes took last and may not have
-- published, at most 500. Dead is a process whose counter is still the one that the caller saw
-- unchanged for too long. What a process took more than $4 seconds before its last heartbeat it
-- had published or made due again. A process that takes rows more than $5 seconds after its last
-- heartbeat is alive but cannot write heartbeats: it counts as dead soon after, and the rows that
-- it takes then must not be requeued over and over. The claim stays, so a copy of the message
-- that did arrive does no harm.
-- Parameters: $1 ids of the processes that look dead, $2 their counters, $3 the queues, $4 and $5
-- the spans of domain/liveness.py.
-- Returns: one row per changed notification.
-- Repeating it takes the next rows, if there are more than 500.
WITH lost AS (
    SELECT taken.id
    FROM unnest($1::uuid[], $2::bigint[]) AS dead (id, beat)
    JOIN workers w USING (id, beat)
    CROSS JOIN unnest($3::text[]) AS watched (queue)
    CROSS JOIN LATERAL (
        SELECT n.id FROM notifications n
        WHERE n.queue = watched.queue AND n.status = 'queued' AND n.due_at IS NULL
          AND n.published_at BETWEEN w.beat_at - make_interval(secs => $4::float8)
                                 AND w.beat_at + make_interval(secs => $5::float8)
          AND n.published_by = w.id
        LIMIT 500
        FOR UPDATE SKIP LOCKED
    ) taken
    LIMIT 500
)
UPDATE notifications n SET
    published_at = NULL, due_at = n.ready_at, is_retry = false,
    rescues = least(n.rescues + 1, 32767), updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM lost)) AND n.status::text = 'queued' AND n.due_at IS NULL
RETURNING n.queue
