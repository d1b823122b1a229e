-- The revisions of the quotas of some tenants, in the order given. $1 text[]. A cross-tenant statement.
SELECT coalesce(tenants.revision, 0)
FROM unnest($1::text[]) WITH ORDINALITY AS told (tenant_id, ordinality)
LEFT JOIN metertrail.quota_tenants AS tenants ON tenants.tenant_id = told.tenant_id
ORDER BY told.ordinality
