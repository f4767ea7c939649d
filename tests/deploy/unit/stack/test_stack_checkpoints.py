from pathlib import Path

from ferryline.deploy.stack.addresses import Credentials, ObjectStore
from ferryline.deploy.stack.external import External
from ferryline.deploy.stack.starter import object_store
from ferryline.deploy.stack.state import ProcessRecord, StackState

MINIO = ProcessRecord(pid=1, created=1.0, log=Path("minio.log"), address="http://127.0.0.1:9000")
PORTS = {"minio": 9000}


def test_checkpoints_go_to_the_stacks_own_minio() -> None:
    state = StackState(ports=PORTS, access_key="user", processes={"minio": MINIO})
    assert object_store(state, External(), {}) == ObjectStore(
        "http://127.0.0.1:9000", Credentials("user", "")
    )


def test_checkpoints_stay_on_disk_while_minio_is_stopped() -> None:
    assert object_store(StackState(ports=PORTS, access_key="user"), External(), {}) is None


def test_checkpoints_go_to_an_external_s3() -> None:
    external = External(store="s3://models?endpoint=http://elsewhere:9000")
    found = object_store(StackState(), external, {"AWS_ACCESS_KEY_ID": "someone"})
    assert found == ObjectStore("http://elsewhere:9000", Credentials("someone", "minioadmin"))


def test_a_folder_is_no_place_for_checkpoints_of_a_cluster() -> None:
    assert object_store(StackState(), External(store="file:///models"), {}) is None
