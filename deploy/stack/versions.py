"""Every version the local stack is pinned to, in one place."""

from dataclasses import dataclass
from typing import Final

KAFKA: Final = "4.2.0"
FLINK: Final = "2.3.0"
MINIO: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"

MIN_JAVA: Final = 17
"""Oldest Java feature release that both Kafka and Flink run on."""
MIN_GO: Final = (1, 24)
"""Oldest Go that builds the pinned MinIO."""

MINIO_MODULE: Final = f"github.com/minio/minio@{MINIO}"


@dataclass(frozen=True)
class JarSet:
    """Jars from Maven Central that belong together.

    Attributes:
        name: what the set is called in the cache.
        with_dependencies: coordinates fetched with all they depend on.
        alone: coordinates of single jars.
        digest: SHA-256 over the sorted lines "<sha256 of the jar>  <its name>" of all these jars. Transitive
            resolution decides which jars they are, the digest whether they are the ones reviewed.
    """

    name: str
    with_dependencies: tuple[str, ...]
    alone: tuple[str, ...]
    digest: str


KAFKA_JARS: Final = JarSet(
    name=f"kafka-{KAFKA}",
    with_dependencies=(f"org.apache.kafka:kafka_2.13:{KAFKA}",),
    # Kafka's artefact brings a logging facade only; resolved together, this one would set Kafka's versions
    alone=("org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",),
    digest="4b628504fe97266df80d4403411c47ff0396cebb86e4e81a59e57ac151d8e084",
)
FLINK_KAFKA_CONNECTOR: Final = JarSet(
    name="flink-sql-connector-kafka-5.0.0-2.2",
    with_dependencies=(),
    alone=("org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",),
    digest="b005475fdef13adfb122e0f4225a2626283b1f52bfa97484375f1445d713f348",
)
FLINK_S3_FILESYSTEM: Final = JarSet(
    name=f"flink-s3-fs-presto-{FLINK}",
    with_dependencies=(),
    alone=(f"org.apache.flink:flink-s3-fs-presto:{FLINK}",),
    digest="61294e67c9403e308c3d55dff570d655b9bc3334b6b38195d033fbac17979e95",
)
FLINK_SQL_GATEWAY: Final = JarSet(
    name=f"flink-sql-gateway-{FLINK}",
    with_dependencies=(),
    # the SQL client is a part of the apache-flink wheel, the gateway that it talks to is not
    alone=(f"org.apache.flink:flink-sql-gateway:{FLINK}",),
    digest="f93c58ef03185911b21924fa2944379a67dac9c89ce2daf297d92bb050bf3a53",
)
