-- How all tenants' trees stand, in the byte order of the tenants.
SELECT tenant_id, size, root, frontier
FROM metertrail.audit_heads
ORDER BY tenant_id
