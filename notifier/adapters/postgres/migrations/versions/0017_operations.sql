-- One row for each operation: what a person asks of many notifications.
--   tenant      whose it is; null: those of all tenants
--   filter      what selects the notifications, in the words of the API
--   selection   the same for the search: see adapters/postgres/operations.py
--   version     the version of the selection: a process leaves what is newer than it knows
--   ids         the notifications, if the filter names them
--   before      the position of the pass: the notifications below this id are still to be read
--   pass        which pass it is
--   found       how many of the pass were or still are to be changed
--   steps       how many steps were begun since the last one that was stored
--   next_at     when the next step may be taken; moved when one begins, so that it also tells whose
--               step it is
--   xid         the transaction that stored it: what it may concern was begun before
--   key, body   of the idempotency key, as in idempotency_keys
CREATE TABLE operations (
    id uuid NOT NULL PRIMARY KEY,
    tenant text,
    mode text NOT NULL,
    kind text NOT NULL,
    filter jsonb NOT NULL,
    selection jsonb NOT NULL,
    version integer NOT NULL,
    ids uuid[] NOT NULL DEFAULT '{}',
    rate_per_s double precision,
    note text NOT NULL,
    actor text NOT NULL,
    status text NOT NULL DEFAULT 'running',
    matched integer NOT NULL DEFAULT 0,
    done integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    sample uuid[] NOT NULL DEFAULT '{}',
    before uuid,
    pass integer NOT NULL DEFAULT 0,
    found integer NOT NULL DEFAULT 0,
    steps integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    key uuid,
    body uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX operations_running ON operations (next_at) WHERE status = 'running';
CREATE INDEX operations_tenant ON operations (tenant, mode, id);
CREATE UNIQUE INDEX operations_key ON operations (key) WHERE key IS NOT NULL;

-- The notifications that were sent again after they had ended, and the last time that happened.
--   claim      the number above which the claims of the new life are
--   operation  the operation that did it; null: a person, with this one alone
CREATE TABLE retries (
    id uuid NOT NULL PRIMARY KEY,
    claim integer NOT NULL,
    operation uuid,
    at timestamptz NOT NULL
) WITH (vacuum_truncate = off);
