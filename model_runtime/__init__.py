"""An ONNX file made safe and fast to serve: inspection, session, and the follower that swaps it."""
