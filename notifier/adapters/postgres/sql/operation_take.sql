-- Takes the operation whose next step is due first, until the end of the transaction. A later version
-- may have operations of other kinds.
-- Returns: its row; none if none is due, or if other processes work on those that are.
SELECT * FROM operations
WHERE status = 'running' AND next_at <= now() AND kind IN ('cancel', 'retry')
ORDER BY next_at LIMIT 1
FOR UPDATE SKIP LOCKED
