-- The key of a person's data. $1 text: tenant. $2 text: subject.
SELECT key FROM metertrail.audit_subjects WHERE tenant_id = $1 AND subject = $2 AND key IS NOT NULL
