-- Writes the results of attempts that were not accepted and whose rows this worker still holds
-- (record_sent.sql writes the accepted ones): the row moves on, the attempt is kept, and a failure
-- is kept if it was the last attempt. A retry that would be due after expires_at becomes expired
-- instead.
-- Parameters: $1 ids, $2 claims, $3 statuses (retrying, failed), $4 tries spent, $5 seconds
-- until the next attempt, $6 reasons of failure, $7 outcomes, $8 providers, $9 codes, $10
-- details, $11 references of the provider, $12 seconds waited in the queue, $13 seconds that the
-- call took, $14 seconds since it ended, $15 this worker's id, $16 and $17 the least and the
-- greatest id.
-- Returns: one row per changed notification; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing and returns no row: record_late.sql then returns the recorded
-- result.
WITH result AS (
    SELECT *, after_s * interval '1 second' AS after,
           clock_timestamp() - finished_ago_s * interval '1 second' AS finished_at,
           clock_timestamp() - (finished_ago_s + took_s) * interval '1 second' AS started_at
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::smallint[], $5::float8[],
                $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
                $12::real[], $13::float8[], $14::float8[])
        AS t (id, claim, status, spent, after_s, reason, outcome, provider, code, detail, reference,
              queue_wait_s, took_s, finished_ago_s)
), moved AS (
    UPDATE notifications n SET
        status = CASE WHEN r.status = 'retrying' AND now() + r.after >= n.expires_at
                      THEN 'expired' ELSE r.status END::notification_status,
        tries = least(n.tries::integer + r.spent, 32767),
        due_at = CASE WHEN r.status = 'retrying' AND now() + r.after < n.expires_at
                      THEN now() + r.after END,
        ready_at = CASE WHEN r.status = 'retrying' THEN now() + r.after ELSE n.ready_at END,
        is_retry = true,
        claimed_by = NULL,
        last_error = left(concat_ws(' ', r.outcome, nullif(r.code, ''), nullif(r.detail, '')), 500),
        updated_at = now()
    FROM result r
    WHERE n.id = r.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $16 AND $17
      AND n.status::text = 'sending' AND n.claim = r.claim AND n.claimed_by = $15
    RETURNING n.id, n.claim, n.queue, n.status, n.tries, n.due_at, n.created_at,
              r.reason, r.outcome, r.provider, r.code, r.detail, r.reference, r.queue_wait_s,
              r.started_at, r.finished_at
), throttled_again AS (
    -- Counts on the attempt of the claim before, if that was throttled too.
    UPDATE attempts a SET
        claim = m.claim, repeats = least(a.repeats, 2147483646) + 1,
        finished_at = m.finished_at, next_at = m.due_at, recorded_by = $15, code = m.code,
        detail = m.detail
    FROM moved m
    WHERE a.id = ANY (ARRAY(SELECT id FROM result WHERE outcome = 'throttled'))
      AND a.id = m.id AND a.id BETWEEN $16 AND $17 AND a.claim = m.claim - 1
      AND a.outcome = 'throttled' AND a.provider = m.provider AND NOT a.late
      AND m.outcome = 'throttled'
      AND NOT EXISTS (SELECT FROM attempts b
                      WHERE b.id = m.id AND b.id BETWEEN $16 AND $17 AND b.claim = m.claim)
    RETURNING a.id
), attempted AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, next_at, queue_wait_s,
                          provider, outcome, code, detail, reference)
    SELECT m.id, m.claim, $15, m.started_at, m.finished_at, m.due_at, m.queue_wait_s,
           m.provider, m.outcome, m.code, m.detail, m.reference
    FROM moved m
    WHERE m.id NOT IN (SELECT id FROM throttled_again)
    ON CONFLICT (id, claim) DO NOTHING
), failed AS (
    INSERT INTO failures (id, queue, provider, reason, code, detail, tries, first_at, last_at)
    SELECT m.id, m.queue, m.provider, m.reason, m.code, m.detail, m.tries,
           least(m.started_at, (SELECT min(a.started_at) FROM attempts a
                                WHERE a.id = m.id AND a.id BETWEEN $16 AND $17)),
           m.finished_at
    FROM moved m
    WHERE m.status = 'failed'
    ON CONFLICT (id) DO UPDATE SET
        provider = excluded.provider, reason = excluded.reason, code = excluded.code,
        detail = excluded.detail, tries = excluded.tries, last_at = excluded.last_at
)
SELECT id, claim, status::text AS status, date_part('epoch', now() - created_at) AS age_s FROM moved
