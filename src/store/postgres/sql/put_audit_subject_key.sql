-- Keeps a key for a person's data unless there is one; answers the one that is kept.
-- $1 text: tenant. $2 text: subject. $3 bytea: key.
-- Locks: the subject's row, until the end of the transaction: of two callers at once the second answers the first one's key.
INSERT INTO metertrail.audit_subjects AS subjects (tenant_id, subject, key)
VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, subject) DO UPDATE SET key = coalesce(subjects.key, excluded.key)
RETURNING key
