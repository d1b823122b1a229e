-- The days that were dropped. $1 text: of which table.
SELECT day, state = 'restored', events, key_sum, manifest, manifest_sha256, closed_at, kept_until
FROM metertrail.closed_days
WHERE table_name = $1
ORDER BY day
