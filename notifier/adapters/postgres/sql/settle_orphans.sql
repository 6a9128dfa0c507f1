-- Writes the decisions for orphans, as long as their process is still dead. The attempt becomes
-- Ambiguous; if the process comes back, its late result corrects it. The death counts in `deaths`
-- and spends no try. A row decided as queued whose expires_at has passed becomes expired instead.
-- Parameters: $1 ids, $2 claims, $3 the dead processes, $4 providers, $5 statuses (queued,
-- failed), $6 reasons, $7 this process's id, $8 and $9 the processes that look dead and their
-- counters, as in claimed_by_dead.sql.
-- Returns: one row per changed notification; `age_s` since it was accepted, in seconds. A row
-- that another process has locked is left out.
-- Repeating it changes nothing.
-- (ANY and the status as text: see take_due.sql. Locked rows are skipped, so the order of the
-- locks does not matter.)
WITH decision AS (
    SELECT d.* FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[],
                           $6::text[]) AS d (id, claim, worker, provider, status, reason)
    LEFT JOIN workers w ON w.id = d.worker
    WHERE w.id IS NULL OR (w.id, w.beat) IN (SELECT * FROM unnest($8::uuid[], $9::bigint[]))
), orphan AS (
    SELECT n.id, n.updated_at AS claimed_at, d.claim, d.worker, d.provider, d.status, d.reason
    FROM decision d JOIN notifications n ON n.id = d.id
    WHERE n.id = ANY ($1::uuid[]) AND n.status::text = 'sending'
      AND n.claim = d.claim AND n.claimed_by = d.worker
    FOR UPDATE OF n SKIP LOCKED
), moved AS (
    UPDATE notifications n SET
        status = CASE WHEN o.status = 'queued' AND n.expires_at <= now()
                      THEN 'expired' ELSE o.status END::notification_status,
        deaths = least(n.deaths + 1, 32767),
        due_at = CASE WHEN o.status = 'queued' AND n.expires_at > now() THEN n.ready_at END,
        is_retry = false,
        published_at = NULL,
        claimed_by = NULL,
        last_error = 'ambiguous worker_died',
        updated_at = now()
    FROM orphan o
    WHERE n.id = o.id AND n.id = ANY ($1::uuid[])
    RETURNING n.id, n.claim, n.queue, n.status, n.tries, n.due_at, n.created_at, n.ready_at
), attempted AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, next_at, queue_wait_s,
                          provider, outcome, code, detail, reference)
    SELECT m.id, m.claim, $7, o.claimed_at, clock_timestamp(), m.due_at,
           greatest(0, extract(epoch FROM o.claimed_at - m.ready_at)), o.provider, 'ambiguous',
           'worker_died', 'the worker died before it recorded a result', ''
    FROM moved m JOIN orphan o ON o.id = m.id
    ON CONFLICT (id, claim) DO NOTHING
), failed AS (
    INSERT INTO failures (id, queue, provider, reason, code, detail, tries, first_at, last_at)
    SELECT m.id, m.queue, o.provider, o.reason, 'worker_died', '', m.tries,
           least(o.claimed_at, (SELECT min(a.started_at) FROM attempts a WHERE a.id = m.id)), now()
    FROM moved m JOIN orphan o ON o.id = m.id
    WHERE m.status = 'failed'
    ON CONFLICT (id) DO UPDATE SET
        provider = excluded.provider, reason = excluded.reason, code = excluded.code,
        detail = excluded.detail, tries = excluded.tries, last_at = excluded.last_at
)
SELECT id, status::text AS status, date_part('epoch', now() - created_at) AS age_s FROM moved
