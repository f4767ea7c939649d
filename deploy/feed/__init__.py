"""`ferry-feed`: replays public data sets into Kafka, good records and, on request, bad ones."""
