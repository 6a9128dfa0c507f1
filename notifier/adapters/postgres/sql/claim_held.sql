-- Claims rows as claim.sql does, and also reads whose they are: for the time in which there are holds.
-- Parameters and result as in claim.sql, with `tenant` and `tag` in addition.
-- (tests/unit/test_sql_constants.py compares both.)
WITH claimed AS (
    UPDATE live l SET claim = l.claim + 1, claimed_by = $3, claimed_at = now()
    FROM unnest($1::uuid[], $2::integer[]) AS t (id, claim)
    WHERE l.id = ANY ($1::uuid[]) AND l.id = t.id AND l.claim = t.claim
      AND l.claimed_by = '00000000-0000-0000-0000-000000000000' AND (l.expires_at > now()) IS TRUE
    RETURNING l.id, l.claim, l.queue, l.tries, l.max_tries, l.ready_at, l.deferrals, l.unspent,
              l.ambiguous
)
SELECT c.id, c.claim, c.queue, n.recipient, n.content, n.tenant, n.tag, c.tries, c.max_tries,
       c.deferrals, c.unspent, c.ambiguous, date_part('epoch', now() - c.ready_at) AS waited_s
FROM claimed c
LEFT JOIN notifications n ON n.id = c.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $4 AND $5
