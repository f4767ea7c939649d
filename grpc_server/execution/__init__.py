"""How a request's run is executed: at once on the event loop, on a thread, or together with others.

`policy`, `costs`, `line` and `batches` are rules without a clock, a thread or a loop; `running` runs models;
`executor` is the one place with asyncio and threads in it.
"""
