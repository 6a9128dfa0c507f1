-- Makes parked rows due whose pause has ended. One that waits for something else by now stays as it
-- is. Rows that another process has locked are left out.
-- Parameters: $1 the maximum number of rows.
-- Returns: one row; how many parked rows were `found`, and how many of them are due now.
-- Repeating it continues with the next ones.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), ended AS (
    SELECT p.id FROM parked p
    WHERE NOT EXISTS (SELECT FROM holds h WHERE h.kind = p.kind AND h.name = p.name
                                                AND (h.until IS NULL OR h.until > now()))
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), woken AS (
    UPDATE live SET due_at = (SELECT now FROM clock), ready_at = (SELECT now FROM clock)
    WHERE id = ANY (ARRAY(SELECT id FROM ended)) AND class = 1
      AND claimed_by = '00000000-0000-0000-0000-000000000000'
      AND due_at > (SELECT now FROM clock)
    RETURNING id
), forgotten AS (
    DELETE FROM parked WHERE id = ANY (ARRAY(SELECT id FROM ended))
)
SELECT (SELECT count(*) FROM ended) AS found, (SELECT count(*) FROM woken) AS woken
