-- Makes the partition of one UTC day of audit events, if it is missing. $1 date.
-- Locks: share update exclusive on the events' parent, only when a partition is made; writers go on.
SELECT metertrail.ensure_audit_partition($1)
