"""gRPC over HTTP/2 on asyncio, in Python: what `transport` listens with.

    errors        what a caller may do wrong on a connection
    frames        the frames of RFC 9113: heads, kinds, how to write them
    fields        header blocks (RFC 7541): read fast, written once
    outbound      what waits to be sent, and the windows it waits for
    connection    one connection: frames in, frames out, a table of streams
    messages      gRPC's messages in a stream's bytes
    metadata      gRPC's headers: deadlines, statuses, metadata
    heads         what the headers of a call say of it
    calls         one call: a stream, its messages, its deadline and its answer
    contexts      a call as the servicers of grpc.aio know it
    listening     sockets, connections that come and go, and the end

Arrows point up this list. All but `calls`, `contexts` and `listening` are without IO and clocks.
"""
