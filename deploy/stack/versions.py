"""Every version the local stack is pinned to, in one place."""

from typing import Final

KAFKA: Final = "4.2.0"
FLINK: Final = "2.3.0"
MINIO: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"

MIN_JAVA: Final = 17
"""Oldest Java feature release that both Kafka and Flink run on."""
MIN_GO: Final = (1, 24)
"""Oldest Go that builds the pinned MinIO."""

MINIO_MODULE: Final = f"github.com/minio/minio@{MINIO}"

KAFKA_COORDINATES: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA}",
    # Kafka's own artefact names a logging facade only; without a binding a failed start says nothing
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
)
FLINK_KAFKA_CONNECTOR: Final = "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"
FLINK_S3_FILESYSTEM: Final = f"org.apache.flink:flink-s3-fs-presto:{FLINK}"

# SHA-256 over the sorted lines "<sha256 of the jar>  <jar name>" of what the coordinates resolve to: Maven's
# transitive resolution decides which jars these are, the digest decides whether they are the ones reviewed.
KAFKA_JARS_DIGEST: Final = "@KAFKA@"
FLINK_KAFKA_CONNECTOR_DIGEST: Final = "@CONN@"
FLINK_S3_FILESYSTEM_DIGEST: Final = "@S3@"
