-- Keeps a new incident, unless one of its fingerprint is open. Columns in the order of the parameters, $1 to $18, and $19 uuid:
-- the fingerprint.
-- Guarantee: of several callers at once one keeps it; its row says so.
INSERT INTO metertrail.incidents (
    tenant_id, id, rule, subject, severity, state, value, threshold, unit, opened_at, fired_at, calm_since, observed_at,
    resolved_at, notified_at, acknowledged_by, acknowledged_at, revision, fingerprint)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT DO NOTHING
RETURNING true
