-- Places a legal hold on a person's data, or with null releases it. $1 text: tenant. $2 text: subject, '' for everybody.
-- $3 text: the reason.
INSERT INTO metertrail.audit_subjects AS subjects (tenant_id, subject, hold_reason)
VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, subject) DO UPDATE SET hold_reason = excluded.hold_reason
