from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ferryline.deploy.stack import versions
from ferryline.deploy.stack.parts import flink, flink_config

COMPOSE = Path(__file__).parents[4] / "deploy" / "compose.yaml"


@pytest.fixture
def services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE.read_text())["services"])


def test_containers_run_the_versions_the_stack_is_pinned_to(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{versions.KAFKA}"
    assert services["jobmanager"]["image"] == services["taskmanager"]["image"] == f"flink:{versions.FLINK}"
    assert f"flink-s3-fs-presto-{versions.FLINK}.jar" in str(services["jobmanager"]["environment"])
    assert versions.FLINK_KAFKA_CONNECTOR.name in str(services["jobmanager"]["volumes"])


def test_the_volume_of_models_is_that_of_the_former_name() -> None:
    volumes = YAML(typ="safe").load(COMPOSE.read_text())["volumes"]
    assert volumes == {"minio": {"name": "modelferry_minio"}}


def test_containers_are_reached_from_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_flink_tells_its_metrics_to_prometheus(services: dict[str, Any]) -> None:
    for name, port in (
        ("jobmanager", flink.JOB_METRICS.default),
        ("taskmanager", flink.TASK_METRICS.default),
    ):
        assert f"127.0.0.1:{port}:9249" in services[name]["ports"]
        assert f"{flink_config.METRICS_PORT}: 9249" in services[name]["environment"]["FLINK_PROPERTIES"]
