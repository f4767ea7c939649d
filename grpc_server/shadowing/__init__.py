"""Shadows: a version that runs again what another one has answered, so that the two can be compared.

`policy` and `comparison` are rules without a clock, a thread or a model; `sampling` and `backlog` are what
the event loop touches; `worker` is the one thread that runs and compares; `metrics` and `telling` show what
came of it. No answer waits for anything here, and none can fail or change by it.
"""
