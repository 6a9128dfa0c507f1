-- Reads which rights this role lacks on the tables and functions that a process needs.
-- Parameters: $1 the tables, $2 the functions with their argument types.
-- Returns: one row per missing right; one row whose `missing` is null per table or function that
-- does not exist.
WITH needed AS (
    SELECT false AS is_function, name, to_regclass(name)::oid AS oid, wanted
    FROM unnest($1::text[]) AS t (name)
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (wanted)
    UNION ALL
    SELECT true, name, to_regprocedure(name)::oid, 'EXECUTE' FROM unnest($2::text[]) AS f (name)
)
SELECT DISTINCT is_function, name, CASE WHEN oid IS NOT NULL THEN wanted END AS missing,
       current_user AS role
FROM needed
WHERE oid IS NULL OR NOT CASE
    WHEN is_function THEN has_function_privilege(oid, wanted)
    ELSE has_table_privilege(oid, wanted)
END
ORDER BY is_function, name, missing
