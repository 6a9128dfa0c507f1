-- Writes the results of accepted attempts whose rows this worker still holds: the row is deleted,
-- and the attempt is kept, which is what makes the notification sent. Each has spent a try.
-- Parameters: $1 ids, $2 claims, $3 providers, $4 codes, $5 details, $6 references of the provider,
-- $7 HTTP statuses, $8 seconds waited in the queue, $9 seconds that the call took, $10 seconds since
-- it ended, $11 this worker's id. $4 to $7 may be empty, which means empty texts and no statuses:
-- unnest fills them up with nulls.
-- Returns: one row per deleted row; `age_s` since it was accepted by the API, in seconds.
-- Repeating it changes nothing and returns no row: record_late.sql then returns the recorded
-- result.
WITH moved AS (
    DELETE FROM live l
    USING unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
                 $7::smallint[], $8::real[], $9::float8[], $10::float8[])
        AS r (id, claim, provider, code, detail, reference, http_status, queue_wait_s, took_s,
              finished_ago_s)
    WHERE l.id = ANY ($1::uuid[]) AND l.id = r.id AND l.claim = r.claim AND l.claimed_by = $11
    RETURNING l.id, l.claim, l.queue, l.tries, l.created_at, r.provider, r.code, r.detail, r.reference,
              r.http_status, r.queue_wait_s, r.took_s, r.finished_ago_s
), attempted AS (
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference, http_status, tries)
    SELECT id, claim, $11, clock_timestamp() - (finished_ago_s + took_s) * interval '1 second',
           clock_timestamp() - finished_ago_s * interval '1 second', queue_wait_s, provider,
           'accepted', coalesce(code, ''), coalesce(detail, ''), coalesce(reference, ''),
           http_status, least(tries + 1, 32767)
    FROM moved
    ON CONFLICT (id, claim) DO NOTHING
)
-- :parts
SELECT id, claim, 'sent' AS status, date_part('epoch', now() - created_at) AS age_s FROM moved
