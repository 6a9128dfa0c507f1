-- Claims rows that are still unclaimed at the requested claim and have not expired.
-- Parameters: $1 ids without duplicates, $2 the claim of each, $3 this worker's id, $4 and $5 the
-- least and the greatest id, by which the plan skips the partitions of other days.
-- Returns: one row per claimed row; `waited_s` since it was ready, in seconds. `content` is null if
-- its notification is missing.
-- Repeating it changes nothing: the claim has moved on.
-- (IS TRUE keeps Postgres from reading the index on expires_at in place of the primary key.)
WITH claimed AS (
    UPDATE live l SET claim = l.claim + 1, claimed_by = $3, claimed_at = now()
    FROM unnest($1::uuid[], $2::integer[]) AS t (id, claim)
    WHERE l.id = ANY ($1::uuid[]) AND l.id = t.id AND l.claim = t.claim
      AND l.claimed_by = '00000000-0000-0000-0000-000000000000' AND (l.expires_at > now()) IS TRUE
    RETURNING l.id, l.claim, l.queue, l.tries, l.max_tries, l.ready_at, l.deferrals, l.unspent,
              l.ambiguous
)
SELECT c.id, c.claim, c.queue, n.recipient, n.content, c.tries, c.max_tries,
       c.deferrals, c.unspent, c.ambiguous, date_part('epoch', now() - c.ready_at) AS waited_s
FROM claimed c
LEFT JOIN notifications n ON n.id = c.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $4 AND $5
