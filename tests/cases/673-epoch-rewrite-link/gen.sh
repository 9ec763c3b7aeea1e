touch -d '2011-11-11 UTC' old; touch -d '2024-12-12 UTC' new
