-- Notes workers as dead at the counter that they have, once for each counter, with an event.
-- Parameters: $1 ids, $2 counters.
-- Returns: one row per worker that was not noted before.
-- Repeating it changes nothing.
WITH lost AS (
    UPDATE workers w SET lost_beat = d.beat
    FROM unnest($1::uuid[], $2::bigint[]) AS d (id, beat)
    WHERE w.id = d.id AND w.beat = d.beat AND w.lost_beat IS DISTINCT FROM d.beat
      AND w.kind IN ('worker', 'dev')
    RETURNING w.id, w.kind, w.host, w.pid, w.started_at
), announced AS (
    INSERT INTO event_batches (day, type, mode, ids, documents)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'worker.lost', 'live', array_agg(id),
           array_agg(json_build_object('worker', json_build_object(
               'id', id, 'kind', kind, 'host', host, 'pid', pid, 'started_at', started_at))::text)
    FROM lost
    WHERE to_regclass('event_batches_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
    HAVING count(*) > 0
)
SELECT id FROM lost
