"""Triton's own client over gRPC: `triton_grpc.py [ADDRESS]`. What was written for Triton needs no change."""

import sys

from digit import THREE
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"

with InferenceServerClient(address) as client:
    print("ready", client.is_model_ready("digits"))
    tensor = InferInput("input", list(THREE.shape), "FP32")
    tensor.set_data_from_numpy(THREE)
    result = client.infer("digits", [tensor], outputs=[InferRequestedOutput("label")])
    print("digit", result.as_numpy("label")[0])
    reply = result.get_response()
    print("version", reply.model_version, "generation", reply.parameters["ferry_generation"].int64_param)
