-- Keeps a plan, in place of one of the same name. $1 text: name. $2 jsonb: limits.
-- Locks: the row.
INSERT INTO metertrail.quota_plans (name, limits) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET limits = excluded.limits
