#!/bin/sh
# The protocol over gRPC with grpcurl, which asks the server itself for its services: grpcurl.sh [ADDRESS]
set -eu
address="${1:-127.0.0.1:8001}"
cd "$(dirname "$0")"
grpcurl -plaintext "$address" grpc.health.v1.Health/Check
grpcurl -plaintext -d @ "$address" inference.GRPCInferenceService/ModelInfer <infer-grpc.json
