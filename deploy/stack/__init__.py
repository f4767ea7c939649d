"""The local stack: a real Kafka, MinIO and Flink on this machine, without Docker.

Everything comes from package registries by name and is cached; `ferryline.deploy.stack.local.LocalStack`
is the Python interface and `ferry-stack` the command line.
"""
