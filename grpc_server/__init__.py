"""The inference server: the Open Inference Protocol over gRPC, on models that are swapped while it runs.

The way of a request, from the wire inwards; nothing further in knows of what is further out:

    transport   grpc.aio: takes bytes, gives bytes or a status
    shortcut    the hot path: plain requests answered on bytes, everything else left to the way below
    endpoint    bytes to message, handler, message to bytes; faults become errors a caller may see
    handlers    one method for each RPC, message in, message out
    offering    a version that can be asked: its contract, its session, the head of its replies
"""
