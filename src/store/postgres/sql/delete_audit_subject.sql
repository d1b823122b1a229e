-- Deletes the key of a person's data. $1 text: tenant. $2 text: subject. Run under lock_audit_subject.
DELETE FROM metertrail.audit_subjects WHERE tenant_id = $1 AND subject = $2
