-- Gives a tenant a limit of its own. $1 text: tenant. $2 text: quota. $3 text: kind of window. $4 jsonb: window. $5 bigint:
-- amount or NULL for unlimited. $6 timestamptz: expiry or NULL. $7 text: reason or NULL.
-- Locks: the row.
INSERT INTO metertrail.quota_overrides (
    tenant_id, quota, window_type, window_definition, amount, expires_at, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, quota, window_type) DO UPDATE SET
    window_definition = excluded.window_definition,
    amount = excluded.amount,
    expires_at = excluded.expires_at,
    reason = excluded.reason
