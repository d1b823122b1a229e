-- How many events a day has, and the sum of the last 60 bits of their ids. $1 date.
SELECT events, key_sum FROM metertrail.usage_day_digest($1)
