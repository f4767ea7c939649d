"""The demo: digits from a Kafka stream through training, publishing, hot swaps and a rollback, live."""
