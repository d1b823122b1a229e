-- The plans that are kept, by name.
SELECT name, limits FROM metertrail.quota_plans ORDER BY name
