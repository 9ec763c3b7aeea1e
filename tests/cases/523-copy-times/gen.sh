touch -d '1999-12-31 23:59:59 UTC' old; touch -d '2025-01-01 00:00:00 UTC' new; touch -d '1970-01-01 00:00:01 UTC' epoch
touch -d '2001-02-03 04:05:06.789 UTC' frac
