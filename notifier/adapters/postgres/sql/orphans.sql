-- What Postgres believes this worker is sending.
SELECT id, claim FROM notifications WHERE status = 'sending' AND claimed_by = $1
