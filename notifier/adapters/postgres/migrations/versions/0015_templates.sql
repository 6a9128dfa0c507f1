-- Versions of templates. Rows are added and never changed, so processes keep what they have read.
--   tenant    '' is the default tenant
--   document  as submitted, as JSON
--   compiled  the same with HTML in place of MJML; null: it is the document
CREATE TABLE templates (
    id uuid NOT NULL PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    channels text[] NOT NULL,
    document bytea NOT NULL,
    compiled bytea,
    actor text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, name, version)
);
