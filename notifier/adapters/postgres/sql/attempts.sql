SELECT claim, provider, outcome, code, detail, queue_wait_s, started_at, finished_at, next_at,
       repeats, late
FROM attempts WHERE id = $1 ORDER BY claim
