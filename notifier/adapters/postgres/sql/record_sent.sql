-- Writes the results of accepted attempts whose rows this worker still holds: the row becomes
-- sent, and the attempt is kept. Each has spent a try. The row's is_retry stays as it is: it
-- matters only while a row is due.
-- Parameters: $1 ids, $2 claims, $3 providers, $4 codes, $5 details, $6 references of the provider,
-- $7 seconds waited in the queue, $8 seconds that the call took, $9 seconds since it ended, $10
-- this worker's id, $11 and $12 the least and the greatest id.
-- Returns: one row per changed notification; `age_s` since it was accepted by the API, in seconds.
-- Repeating it changes nothing and returns no row: record_late.sql then returns the recorded
-- result.
WITH moved AS (
    UPDATE notifications n SET
        status = 'sent', tries = least(n.tries + 1, 32767), claimed_by = NULL, updated_at = now()
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::real[], $8::float8[], $9::float8[])
        AS r (id, claim, provider, code, detail, reference, queue_wait_s, took_s, finished_ago_s)
    WHERE n.id = r.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $11 AND $12
      AND n.status::text = 'sending' AND n.claim = r.claim AND n.claimed_by = $10
    RETURNING n.id, n.claim, n.created_at, r.provider, r.code, r.detail, r.reference,
              r.queue_wait_s, r.took_s, r.finished_ago_s
), attempted AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference)
    SELECT id, claim, $10, clock_timestamp() - (finished_ago_s + took_s) * interval '1 second',
           clock_timestamp() - finished_ago_s * interval '1 second', queue_wait_s, provider,
           'accepted', code, detail, reference
    FROM moved
    ON CONFLICT (id, claim) DO NOTHING
)
SELECT id, claim, 'sent' AS status, date_part('epoch', now() - created_at) AS age_s FROM moved
