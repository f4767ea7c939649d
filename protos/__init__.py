"""The Open Inference Protocol v2 and its generated code, in a descriptor pool of its own.

Why of its own: Triton's client registers another `grpc_service.proto` of the same package in protobuf's
default pool. Measured with tritonclient 2.49 and protobuf 5.29 (upb), in either order: two different files of
one name fail at the second import ("duplicate file name"), and so do two names ("duplicate symbol"); only
byte-equal files may meet there. So `ferryline.protos.generate` lets protoc's Python code use its own pool.
The bytes on the wire are the same; only the classes must not be mixed: a message of theirs is no message of
ours.
"""
