"""`ferry-dlq`: look at a pipeline's dead letters, and send them back when what killed them is mended."""
