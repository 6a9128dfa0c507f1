-- Writes the results of attempts that were not accepted and whose rows this worker still holds
-- (record_sent.sql writes the accepted ones): the row waits again, or it is deleted and its
-- end is kept; the attempt is kept. A retry that would be due after expires_at ends it as expired.
-- Of the attempts that spend no try, `deferrals` counts those with the outcome deferred, `unspent`
-- the others; `ambiguous` counts the ambiguous ones.
-- Parameters: $1 ids, $2 claims, $3 statuses (retrying, failed), $4 tries spent, $5 seconds
-- until the next attempt, $6 reasons of failure, $7 outcomes, $8 providers, $9 codes, $10
-- details, $11 references of the provider, $12 HTTP statuses, $13 seconds waited in the queue, $14
-- seconds that the call took, $15 seconds since it ended, $16 this worker's id, $17 and $18 the
-- least and the greatest id.
-- Returns: one row per changed notification; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing and returns no row: record_late.sql then returns the recorded
-- result.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), result AS (
    SELECT *, after_s * interval '1 second' AS after,
           clock_timestamp() - finished_ago_s * interval '1 second' AS finished_at,
           clock_timestamp() - (finished_ago_s + took_s) * interval '1 second' AS started_at
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::smallint[], $5::float8[],
                $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
                $12::smallint[], $13::real[], $14::float8[], $15::float8[])
        AS t (id, claim, status, spent, after_s, reason, outcome, provider, code, detail, reference,
              http_status, queue_wait_s, took_s, finished_ago_s)
), retried AS (
    UPDATE live l SET
        claimed_by = '00000000-0000-0000-0000-000000000000', class = 2,
        due_at = (SELECT now FROM clock) + r.after, ready_at = (SELECT now FROM clock) + r.after,
        tries = least(l.tries::integer + r.spent, 32767),
        deferrals = least(l.deferrals::integer + (r.outcome = 'deferred')::integer, 32767),
        unspent = least(l.unspent::integer
                        + (r.spent = 0 AND r.outcome <> 'deferred')::integer, 32767),
        ambiguous = least(l.ambiguous::integer + (r.outcome = 'ambiguous')::integer, 32767)
    FROM result r
    WHERE l.id = ANY ($1::uuid[]) AND l.id = r.id AND l.claim = r.claim AND l.claimed_by = $16
      AND r.status = 'retrying' AND l.expires_at > now() + r.after
    RETURNING l.id, l.claim, 'retrying' AS status, l.queue, l.tries, l.due_at, l.created_at
), ended AS (
    DELETE FROM live l USING result r
    WHERE l.id = ANY ($1::uuid[]) AND l.id = r.id AND l.claim = r.claim AND l.claimed_by = $16
      AND NOT (r.status = 'retrying' AND l.expires_at > now() + r.after)
    RETURNING l.id, l.claim,
              CASE r.status WHEN 'retrying' THEN 'expired' ELSE r.status END AS status,
              l.queue, least(l.tries::integer + r.spent, 32767)::smallint AS tries,
              NULL::timestamptz AS due_at, l.created_at
), moved AS (
    SELECT m.*, r.reason, r.outcome, r.provider, r.code, r.detail, r.reference, r.http_status,
           r.queue_wait_s,
           r.started_at, r.finished_at
    FROM (SELECT * FROM retried UNION ALL SELECT * FROM ended) m
    JOIN result r ON r.id = m.id AND r.claim = m.claim
), repeated AS (
    -- Counts on the attempt of the claim before, if that had the same outcome and spent no try: an
    -- unavailable attempt that spent one has another code.
    UPDATE attempts a SET
        claim = m.claim, repeats = least(a.repeats, 2147483646) + 1,
        finished_at = m.finished_at, next_at = m.due_at, recorded_by = $16, code = m.code,
        http_status = m.http_status, detail = m.detail
    FROM moved m
    WHERE a.id = ANY (ARRAY(SELECT id FROM result WHERE spent = 0))
      AND a.id = m.id AND a.id BETWEEN $17 AND $18 AND a.claim = m.claim - 1
      AND a.outcome = m.outcome AND a.provider = m.provider AND NOT a.late
      AND (a.outcome <> 'unavailable' OR a.code = m.code)
      AND NOT EXISTS (SELECT FROM attempts b
                      WHERE b.id = m.id AND b.id BETWEEN $17 AND $18 AND b.claim = m.claim)
    RETURNING a.id
), attempted AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, next_at, queue_wait_s,
                          provider, outcome, code, detail, reference, http_status, tries)
    SELECT m.id, m.claim, $16, m.started_at, m.finished_at, m.due_at, m.queue_wait_s,
           m.provider, m.outcome, m.code, m.detail, m.reference, m.http_status, m.tries
    FROM moved m
    WHERE m.id NOT IN (SELECT id FROM repeated)
    ON CONFLICT (id, claim) DO NOTHING
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, provider, code, detail, tries, first_at, at)
    SELECT m.id, m.claim, m.status::notification_status, m.queue, m.reason, m.provider, m.code,
           m.detail, m.tries,
           least(m.started_at, (SELECT min(a.started_at) FROM attempts a
                                WHERE a.id = m.id AND a.id BETWEEN $17 AND $18)),
           m.finished_at
    FROM moved m
    WHERE m.status <> 'retrying'
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT id, claim, status, date_part('epoch', now() - created_at) AS age_s FROM moved
