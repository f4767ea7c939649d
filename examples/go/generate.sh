#!/bin/sh
# Generates the Go code of ../../protos/grpc_service.proto into inference/, with the plugins that go.mod pins.
# PROTOC may name another protoc than the one in Python's grpcio-tools.
set -eu
cd "$(dirname "$0")"
go build -o .bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
mkdir -p inference
PATH="$PWD/.bin:$PATH" ${PROTOC:-python3 -m grpc_tools.protoc} \
  --proto_path=../../protos \
  --go_out=inference --go_opt=paths=source_relative,Mgrpc_service.proto=ferryline.example/go/inference \
  --go-grpc_out=inference --go-grpc_opt=paths=source_relative,Mgrpc_service.proto=ferryline.example/go/inference \
  grpc_service.proto
