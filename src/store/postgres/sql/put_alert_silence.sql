-- Keeps a silence, in place of one of its id. $1 text: the tenant, '' for all. $2 uuid: its id. $3 text: the rule, '' for all.
-- $4, $5 timestamptz: from and until when. $6 text: why. $7 text: by whom.
INSERT INTO metertrail.alert_silences (tenant_id, id, rule, starts_at, ends_at, reason, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, id) DO UPDATE SET
    rule = excluded.rule,
    starts_at = excluded.starts_at,
    ends_at = excluded.ends_at,
    reason = excluded.reason,
    created_by = excluded.created_by
