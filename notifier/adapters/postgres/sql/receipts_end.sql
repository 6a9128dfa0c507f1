-- Ends sent notifications as delivered or undelivered, if the receipt is greater than the one that ended
-- them before: see Standing in domain/receipts.py. One that waits, is being sent, has ended otherwise
-- or was sent again since the attempt stays as it is.
-- Parameters: $1 ids, each once, $2 claims of the attempts, $3 statuses, $4 reasons, $5 providers, $6
-- codes, $7 details, $8 times of the provider, $9 and $10 the least and the greatest id.
-- Returns: one row per notification whose end was written.
-- Repeating it changes nothing.
-- (The claim of an end is above every one that was given: retry.sql begins after it. The row of a late
-- result may have had higher claims than that of its attempt, one for each time it was given back.)
INSERT INTO ends AS e (id, claim, status, queue, reason, provider, code, detail, tries, first_at, at)
SELECT t.id, coalesce(a.claim, t.claim), t.status::notification_status, n.queue, t.reason, t.provider, t.code, t.detail,
       a.tries, n.created_at, t.at
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::timestamptz[]) AS t (id, claim, status, reason, provider, code, detail, at)
CROSS JOIN LATERAL (SELECT queue, created_at FROM notifications
                    WHERE id = t.id AND id BETWEEN $9 AND $10 LIMIT 1) n
CROSS JOIN LATERAL (SELECT max(claim + CASE WHEN late THEN 1000 ELSE 0 END) AS claim,
                           coalesce(max(tries), 1)::smallint AS tries
                    FROM attempts WHERE id = t.id AND id BETWEEN $9 AND $10) a
WHERE NOT EXISTS (SELECT FROM live l WHERE l.id = t.id)
  AND NOT EXISTS (SELECT FROM retries r WHERE r.id = t.id AND r.claim > t.claim)
ORDER BY t.id
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, reason = excluded.reason, provider = excluded.provider,
    code = excluded.code, detail = excluded.detail, at = excluded.at
WHERE e.status IN ('delivered', 'undelivered')
  AND (excluded.at, excluded.status = 'delivered', excluded.reason COLLATE "C", excluded.code COLLATE "C")
      > (e.at, e.status = 'delivered', e.reason COLLATE "C", e.code COLLATE "C")
RETURNING e.id
