-- Writes the decisions for orphans, as long as their process is still dead: the row is due again at
-- once, before the rows of other classes, or it is deleted and its end is kept. The attempt becomes
-- Ambiguous; if the process comes back, its late result corrects it. The death counts in `deaths`
-- and spends no try. A row decided as queued whose expires_at has passed expires instead.
-- Parameters: $1 ids, $2 claims, $3 the dead processes, $4 providers, $5 statuses (queued,
-- failed), $6 reasons, $7 this process's id, $8 and $9 the processes that look dead and their
-- counters. Dead is a process without a row in `workers`, and one whose counter is still the one
-- that the caller saw unchanged for too long.
-- Returns: one row per changed notification; `age_s` since it was accepted, in seconds. A row
-- that another process has locked is left out. Nothing is kept of a row without a notification:
-- somebody has dropped its day.
-- Repeating it changes nothing.
-- (Locked rows are skipped, so the order of the locks does not matter.)
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), decision AS (
    SELECT d.* FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[],
                           $6::text[]) AS d (id, claim, worker, provider, status, reason)
    LEFT JOIN workers w ON w.id = d.worker
    WHERE w.id IS NULL OR (w.id, w.beat) IN (SELECT * FROM unnest($8::uuid[], $9::bigint[]))
), orphan AS (
    SELECT l.id, l.claim, l.queue, l.tries, l.claimed_at, l.created_at, l.ready_at, d.provider,
           CASE WHEN d.status = 'queued' AND l.expires_at <= now() THEN 'expired' ELSE d.status END
               AS status,
           CASE WHEN d.status = 'failed' THEN d.reason ELSE '' END AS reason
    FROM decision d JOIN live l ON l.id = d.id
    WHERE l.id = ANY ($1::uuid[]) AND l.claim = d.claim AND l.claimed_by = d.worker
    FOR UPDATE OF l SKIP LOCKED
), returned AS (
    UPDATE live l SET
        claimed_by = '00000000-0000-0000-0000-000000000000', class = 0,
        due_at = (SELECT now FROM clock), deaths = least(l.deaths + 1, 32767)
    FROM orphan o
    WHERE l.id = ANY ($1::uuid[]) AND l.id = o.id AND o.status = 'queued'
    RETURNING l.id, l.due_at
), ended AS (
    DELETE FROM live l USING orphan o
    WHERE l.id = ANY ($1::uuid[]) AND l.id = o.id AND o.status <> 'queued'
    RETURNING l.id
), attempted AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, next_at, queue_wait_s,
                          provider, outcome, code, detail, reference, tries)
    SELECT o.id, o.claim, $7, o.claimed_at, clock_timestamp(), r.due_at,
           greatest(0, extract(epoch FROM o.claimed_at - o.ready_at)), o.provider, 'ambiguous',
           'worker_died', 'the worker died before it recorded a result', '', o.tries
    FROM orphan o LEFT JOIN returned r ON r.id = o.id
    WHERE EXISTS (SELECT FROM notifications n WHERE n.id = o.id)
    ON CONFLICT (id, claim) DO NOTHING
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, provider, code, tries, first_at, at)
    SELECT o.id, o.claim, o.status::notification_status, o.queue, o.reason, o.provider,
           'worker_died', o.tries,
           least(o.claimed_at, (SELECT min(a.started_at) FROM attempts a WHERE a.id = o.id)), now()
    FROM orphan o
    WHERE o.status <> 'queued' AND EXISTS (SELECT FROM notifications n WHERE n.id = o.id)
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT id, status, date_part('epoch', now() - created_at) AS age_s FROM orphan
