-- Reads and locks what there is of a person: its own row and that of everybody of the tenant.
-- $1 text: tenant. $2 text: subject.
-- Locks: both rows in the order of their keys, until the end of the transaction.
SELECT subject, key IS NOT NULL, hold_reason
FROM metertrail.audit_subjects
WHERE tenant_id = $1 AND subject IN ('', $2)
ORDER BY subject
FOR UPDATE
