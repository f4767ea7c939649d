"""The same protocol over HTTP: JSON and binary tensors to messages and back, for the same endpoints as gRPC.

    server      aiohttp: listens and stops
    faults      what goes wrong: a status and a text
    routes      the paths, each with its endpoint; statuses and headers
    inference   the body of an inference to a message, and the reply's message to a body
    documents   every other message as JSON, and parameters from JSON
    elements    the elements of one tensor as JSON, and from it

Source: the REST API of the Open Inference Protocol v2, and Triton's binary tensor data extension of it.
"""
