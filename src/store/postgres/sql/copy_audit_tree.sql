-- Adds nodes to the tenants' trees. One that is there already fails all of them.
-- Guarantee: all or nothing.
-- Locks: the keys of the rows, until the end of the transaction.
COPY metertrail.audit_tree (tenant_id, level, position, hash, event_id) FROM STDIN (FORMAT binary)
