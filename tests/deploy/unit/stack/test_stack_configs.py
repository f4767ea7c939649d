from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ferryline.deploy.stack.addresses import Credentials, ObjectStore
from ferryline.deploy.stack.class_archives import ClassArchives
from ferryline.deploy.stack.parts import kafka, minio
from ferryline.deploy.stack.parts.flink import FlinkFolders, metrics_url
from ferryline.deploy.stack.parts.flink_config import (
    METRICS_PORT,
    FlinkSettings,
    java_options_of,
    render_config,
)

S3 = ObjectStore("http://127.0.0.1:9000", Credentials("user", "it's: #secret"))


def flink_settings(store: ObjectStore | None) -> FlinkSettings:
    return FlinkSettings(
        host="127.0.0.1",
        rest_port=8081,
        rpc_port=6123,
        java_home=Path("/java"),
        java_options="--add-opens=java.base/java.lang=ALL-UNNAMED",
        python=Path("/venv/bin/python"),
        archives=ClassArchives(Path("/archives")),
        slots=2,
        scratch=Path("/srv/flink/tmp"),
        store=store,
    )


def flink_config(store: ObjectStore | None) -> dict[str, object]:
    return dict(YAML(typ="safe").load(render_config(flink_settings(store))))


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_kafka_listens_to_this_machine_only() -> None:
    config = properties(kafka.render_config(port=9092, controller_port=9093, data=Path("/data")))
    assert config["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert config["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092"
    assert config["controller.quorum.voters"] == "1@127.0.0.1:9093"


def test_kafka_is_a_whole_cluster_of_one() -> None:
    config = properties(kafka.render_config(port=9092, controller_port=9093, data=Path("/data")))
    assert config["offsets.topic.replication.factor"] == "1"
    assert config["transaction.state.log.replication.factor"] == "1"
    assert config["transaction.state.log.min.isr"] == "1"
    assert config["auto.create.topics.enable"] == "false"
    assert config["message.max.bytes"] == str(16 * 1024 * 1024)
    assert config["group.initial.rebalance.delay.ms"] == "0"


def test_minio_starts_without_settings_of_another_minio() -> None:
    given = {"MINIO_VOLUMES": "/elsewhere", "PATH": "/bin"}
    credentials = Credentials("user", "password")
    environ = minio.server_environ(given, credentials)
    assert "MINIO_VOLUMES" not in environ
    assert environ["PATH"] == "/bin"
    assert environ["MINIO_ROOT_USER"] == "user"
    assert environ["MINIO_ROOT_PASSWORD"] == credentials.secret_key


def test_flink_listens_to_this_machine_only() -> None:
    config = flink_config(S3)
    bound = {name: value for name, value in config.items() if name.endswith(("bind-host", "bind-address"))}
    assert set(bound.values()) == {"127.0.0.1"}
    assert len(bound) == 3


def test_flink_runs_as_many_tasks_at_once_as_there_are_slots() -> None:
    assert flink_config(S3)["taskmanager.numberOfTaskSlots"] == 2


def test_flink_shows_its_metrics_to_prometheus() -> None:
    config = flink_config(S3)
    assert config["metrics.reporters"] == "prometheus"
    assert str(config["metrics.reporter.prometheus.factory.class"]).endswith("PrometheusReporterFactory")
    assert METRICS_PORT == "metrics.reporter.prometheus.port"
    assert METRICS_PORT not in config, "the job manager and the task manager of one machine have one each"
    assert metrics_url(9249) == "http://127.0.0.1:9249/metrics"


def test_flink_keeps_checkpoints_on_the_object_store() -> None:
    config = flink_config(S3)
    assert config["execution.checkpointing.dir"] == "s3://flink/checkpoints"
    assert config["s3.endpoint"] == "http://127.0.0.1:9000"
    assert config["s3.secret-key"] == "it's: #secret"


def test_flink_without_an_object_store_keeps_checkpoints_on_disk() -> None:
    config = flink_config(None)
    assert config["execution.checkpointing.dir"] == "file:///srv/flink/tmp/checkpoints"
    assert not [name for name in config if name.startswith("s3.")]


def test_flink_runs_python_with_the_stacks_interpreter() -> None:
    config = flink_config(S3)
    assert config["python.executable"] == config["python.client.executable"] == "/venv/bin/python"


def test_the_distributions_java_options_are_kept_but_for_the_compilers() -> None:
    text = "env:\n  java:\n    opts:\n      all: --add-exports=jdk.compiler/a=B --add-opens=java.base/c=D\n"
    assert java_options_of(text) == "--add-opens=java.base/c=D"


@pytest.mark.parametrize("name", ["FLINK_LIB_DIR", "FLINK_ENV_JAVA_OPTS", "JVM_ARGS"])
def test_settings_of_another_flink_are_left_out(name: str) -> None:
    folders = FlinkFolders(Path("/pyflink"), Path("/srv/flink"), Path("/lib"))
    environ = folders.environ({name: "other", "PATH": "/bin"}, Path("/java"))
    assert environ.get(name) != "other"
    assert environ["FLINK_CONF_DIR"] == "/srv/flink/conf"
    assert environ["PATH"] == "/bin"
