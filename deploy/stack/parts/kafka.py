"""Kafka: one KRaft node that is broker and controller at once."""

import logging
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ferryline.deploy.stack.errors import InstallError
from ferryline.deploy.stack.launch import Launch
from ferryline.deploy.stack.ports import LOOPBACK, Listener

NAME = "kafka"
BROKER = Listener("kafka", "Kafka", default=9092, flag="--kafka-port", variable="FERRY_KAFKA")
CONTROLLER = Listener("kafka-controller", "Kafka's controller")

# any constant will do: the cluster id keeps the log folders of different clusters apart, here there is one
_CLUSTER_ID = "bW9kZWxmZXJyeS1zdGFjaw"
_MESSAGE_MAX_BYTES = 16 * 1024 * 1024
_DEADLINE_S = 240.0
_PROBE_TIMEOUT_S = 2.0
_LOG_CONFIG = """\
status = error
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c{1}: %m%n
"""


def render_config(*, port: int, controller_port: int, data: Path) -> str:
    """The text of server.properties."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "auto.create.topics.enable": "false",
        "message.max.bytes": _MESSAGE_MAX_BYTES,
        "replica.fetch.max.bytes": _MESSAGE_MAX_BYTES,
        "group.initial.rebalance.delay.ms": 0,
        # one broker holds the only replica of everything; few partitions start faster
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def prepare(
    *,
    port: int,
    controller_port: int,
    folder: Path,
    java_home: Path,
    jars: Sequence[Path],
    archived: Sequence[str],
    environ: Mapping[str, str],
) -> Launch:
    """Write the configuration, format the log folder if it is new, and say how to start the broker.

    Args:
        port: where clients reach it.
        controller_port: where it reaches itself.
        folder: its configuration and topics.
        java_home: the Java to run it with.
        jars: its class path.
        archived: the options that make it use its class archive.
        environ: its whole environment.

    Raises:
        InstallError: the folder cannot be formatted.
    """
    data = folder / "data"
    config = folder / "server.properties"
    config.write_text(render_config(port=port, controller_port=controller_port, data=data))
    (folder / "log4j2.properties").write_text(_LOG_CONFIG)
    java = _java(java_home, jars, folder)
    if not (data / "meta.properties").exists():
        _format(java, config, environ)
    address = f"{LOOPBACK}:{port}"
    return Launch(
        name=NAME,
        command=[
            *java,
            *archived,
            "-Xms128m",
            "-Xmx512m",
            "-XX:+ExitOnOutOfMemoryError",
            "kafka.Kafka",
            str(config),
        ],
        environ=environ,
        folder=folder,
        address=address,
        ready=lambda: answers(address),
        deadline_s=_DEADLINE_S,
    )


def answers(address: str) -> bool:
    """Whether a bootstrap server describes a cluster with a broker in it.

    Args:
        address: one host:port, or several with commas between.
    """
    if not any(_listens(each) for each in address.split(",")):
        return False
    from kafka import KafkaAdminClient  # an extra: without it MinIO still runs
    from kafka.errors import KafkaError  # as above

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # a broker that is still starting is no news
    timeout_ms = int(_PROBE_TIMEOUT_S * 1000)
    try:
        client = KafkaAdminClient(bootstrap_servers=address.split(","), request_timeout_ms=timeout_ms)
    except (KafkaError, OSError):
        return False
    try:
        return bool(client.describe_cluster()["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        client.close()


def _listens(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


def _java(java_home: Path, jars: Sequence[Path], folder: Path) -> list[str]:
    return [
        str(java_home / "bin" / "java"),
        "-cp",
        ":".join(map(str, jars)),
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-Djava.awt.headless=true",
        f"-XX:ErrorFile={folder / 'hs_err_%p.log'}",
    ]


def _format(java: Sequence[str], config: Path, environ: Mapping[str, str]) -> None:
    command = [*java, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]
    answer = subprocess.run(
        [*command, "-t", _CLUSTER_ID, "-c", str(config)],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        last = (answer.stderr + answer.stdout).strip().splitlines() or ["no output"]
        raise InstallError(
            f"Kafka's log folder {config.parent} cannot be formatted ({last[-1]}): "
            "`ferry-stack down --wipe` deletes it"
        )
