from pathlib import Path

import pytest

from ferryline.deploy.stack.addresses import Addresses, Credentials, store_endpoint, store_url
from ferryline.deploy.stack.errors import StackUsageError
from ferryline.deploy.stack.external import External, external_parts

PASSWORD = "it's hidden"  # noqa: S105 - no real one


def test_only_parts_that_run_are_told_about() -> None:
    addresses = Addresses(store=store_url(9000), access_key="me", secret_key=PASSWORD)
    assert addresses.environ() == {
        "FERRY_STORE": "s3://models?endpoint=http://127.0.0.1:9000",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }


def test_exports_are_quoted_for_a_shell() -> None:
    lines = (
        Addresses(kafka="127.0.0.1:9092", store=store_url(9000), secret_key=PASSWORD).exports().splitlines()
    )
    assert lines == [
        "export FERRY_KAFKA=127.0.0.1:9092",
        "export FERRY_STORE='s3://models?endpoint=http://127.0.0.1:9000'",
        """export AWS_SECRET_ACCESS_KEY='it'"'"'s hidden'""",
    ]


def test_a_password_is_not_shown_by_accident() -> None:
    assert "hidden" not in repr(Addresses(secret_key=PASSWORD))
    assert "hidden" not in repr(Credentials("user", PASSWORD))


def test_credentials_come_from_the_variables_every_s3_tool_reads() -> None:
    given = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "long-enough"}
    assert Credentials.from_environ(given) == Credentials("someone", "long-enough")
    assert Credentials.from_environ({}) == Credentials("minioadmin", "minioadmin")


def test_credentials_minio_would_refuse_are_refused_before_it_starts() -> None:
    with pytest.raises(StackUsageError, match="8 in AWS_SECRET_ACCESS_KEY"):
        Credentials.from_environ({"AWS_SECRET_ACCESS_KEY": "short"})


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("s3://models?endpoint=http://host:9000", "http://host:9000"),
        ("s3://models/prefix", ""),
        ("file:///some/folder", None),
    ],
)
def test_the_endpoint_of_a_store(url: str, endpoint: str | None) -> None:
    assert store_endpoint(url) == endpoint


@pytest.mark.parametrize("url", ["http://host", "s3://", "models"])
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(StackUsageError, match="FERRY_STORE"):
        store_endpoint(url)


def test_what_the_environment_names_runs_elsewhere() -> None:
    environ = {"FERRY_KAFKA": "broker:9092", "FERRY_FLINK": "http://flink:8081/"}
    assert external_parts(environ, {}) == External(kafka="broker:9092", flink="http://flink:8081")


def test_the_stacks_own_exports_do_not_count_as_elsewhere() -> None:
    ports = {"kafka": 9092, "minio": 9000, "flink": 8081}
    environ = {
        "FERRY_KAFKA": "127.0.0.1:9092",
        "FERRY_STORE": "s3://models?endpoint=http://127.0.0.1:9000",
        "FERRY_FLINK": "http://127.0.0.1:8081",
    }
    assert external_parts(environ, ports) == External()
    assert external_parts(environ, {}).kafka == "127.0.0.1:9092"


def test_a_folder_answers_when_its_disk_is_there(tmp_path: Path) -> None:
    assert External(store=(tmp_path / "not" / "yet").as_uri()).answers("minio")
