"""Learns from a stream, judges itself, exports ONNX versions and promotes them by policy."""
