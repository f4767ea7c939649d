"""What readers and writers of streams agree on: pipeline files, records, dead letters, the edge to Kafka."""
