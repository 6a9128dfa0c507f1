-- Claims rows as claim.sql does, for the time in which there are holds. Rows of paused tenants and
-- tags are parked in place of it: each is unclaimed at the next claim and due after the span of its
-- pause, the longer one of two, in the class of rows that are due for the first time. No try is spent.
-- `parked` notes the pause, so that the row becomes due when that ends.
-- Parameters: $1 to $5 as in claim.sql, $6 paused tenants without duplicates, $7 the names of their
-- pauses and $8 the span of each in seconds, $9 paused tags without duplicates and $10 their spans.
-- Returns: one row per claimed row as claim.sql does, with `tenant` in addition; one row per parked
-- row, of which only `id` and `is_parked` mean anything.
-- Repeating it changes nothing: the claim has moved on.
-- (IS TRUE: see claim.sql. One statement parks and claims, so that it locks the rows in one order.)
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), wanted AS (
    SELECT t.id, t.claim, n.recipient, n.content, n.tenant,
           greatest(p.after_s, g.after_s) AS after_s,
           CASE WHEN g.after_s > p.after_s OR p.after_s IS NULL THEN 'tag' ELSE 'tenant' END AS kind,
           CASE WHEN g.after_s > p.after_s OR p.after_s IS NULL THEN g.name ELSE p.name END AS name
    FROM unnest($1::uuid[], $2::integer[]) AS t (id, claim)
    LEFT JOIN notifications n ON n.id = t.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $4 AND $5
    LEFT JOIN unnest($6::text[], $7::text[], $8::float8[]) AS p (tenant, name, after_s)
        ON p.tenant = n.tenant
    LEFT JOIN unnest($9::text[], $10::float8[]) AS g (name, after_s) ON g.name = n.tag
), moved AS (
    UPDATE live l SET
        claim = l.claim + 1, claimed_at = now(),
        claimed_by = CASE WHEN w.after_s IS NULL THEN $3::uuid
                          ELSE '00000000-0000-0000-0000-000000000000' END,
        class = CASE WHEN w.after_s IS NULL THEN l.class ELSE 1 END,
        due_at = coalesce((SELECT now FROM clock) + w.after_s * interval '1 second', l.due_at),
        ready_at = coalesce((SELECT now FROM clock) + w.after_s * interval '1 second', l.ready_at)
    FROM wanted w
    WHERE l.id = ANY ($1::uuid[]) AND l.id = w.id AND l.claim = w.claim
      AND l.claimed_by = '00000000-0000-0000-0000-000000000000' AND (l.expires_at > now()) IS TRUE
    RETURNING l.id, l.claim, l.queue, l.tries, l.max_tries, l.ready_at, l.deferrals, l.unspent,
              l.ambiguous, w.recipient, w.tenant, w.kind, w.name, w.after_s IS NOT NULL AS is_parked,
              CASE WHEN w.after_s IS NULL THEN w.content END AS content
), noted AS (
    INSERT INTO parked (id, kind, name)
    SELECT id, kind, name FROM moved WHERE is_parked
    ORDER BY id
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, name = excluded.name
)
SELECT id, claim, queue, recipient, content, tenant, is_parked, tries, max_tries, deferrals, unspent,
       ambiguous, date_part('epoch', now() - ready_at) AS waited_s
FROM moved
