import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.deploy.stack.__main__ import main
from ferryline.deploy.stack.cli_output import console
from ferryline.deploy.stack.errors import StackBusyError
from ferryline.deploy.stack.home import StackHome
from ferryline.deploy.stack.locking import exclusive
from ferryline.deploy.stack.state import StackState, save_state

Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackHome:
    monkeypatch.setenv("FERRY_STACK_HOME", str(tmp_path / "stack"))
    monkeypatch.setenv("FERRY_CACHE", str(tmp_path / "cache"))
    for name in ("FERRY_KAFKA", "FERRY_STORE", "FERRY_FLINK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return StackHome.from_environ(os.environ)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["ferry-stack", *arguments])
        console.file = sys.stderr
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return command


def record_of(pid: int, created: float, log: Path) -> dict[str, object]:
    return {"pid": pid, "created": created, "log": str(log), "address": "127.0.0.1:1"}


@pytest.mark.parametrize("command", ["install", "up", "down", "status", "logs", "env", "flink"])
def test_every_command_is_in_the_help(run: Run, command: str) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert command in out


@pytest.mark.parametrize("command", ["install", "up", "down", "status", "logs", "env"])
def test_every_command_shows_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Example" in out


def test_the_status_of_a_stack_that_never_ran(home: StackHome, run: Run) -> None:
    code, out, _ = run("status", "-o", "json")
    assert code == 0
    parts = json.loads(out)["parts"]
    assert [(part["name"], part["condition"]) for part in parts] == [
        ("kafka", "stopped"),
        ("minio", "stopped"),
        ("jobmanager", "stopped"),
        ("taskmanager", "stopped"),
    ]


def test_the_status_table_is_a_result(home: StackHome, run: Run) -> None:
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert out.count("stopped") == 4


def test_a_part_that_died_makes_the_status_fail(home: StackHome, run: Run) -> None:
    home.create()
    state = StackState.model_validate(
        {"processes": {"minio": record_of(os.getpid(), 1.0, home.log_of("minio"))}}
    )
    save_state(home.state_file, state)
    code, out, err = run("status", "-o", "json")
    assert code == 6
    assert json.loads(out)["parts"][1]["condition"] == "died"
    assert "minio should run" in err


def test_an_unknown_part_is_wrong_usage(home: StackHome, run: Run) -> None:
    code, _, err = run("up", "--only", "kafka,mysql")
    assert code == 2
    assert "no part called mysql" in err
    assert "Traceback" not in err


def test_a_store_that_is_none_is_wrong_configuration(
    home: StackHome, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_STORE", "ftp://somewhere")
    assert run("up")[0] == 2


def test_an_external_store_folder_needs_no_minio(
    home: StackHome, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FERRY_STORE", tmp_path.as_uri())
    code, _, err = run("up", "--only", "minio")
    assert code == 0
    assert "file://" in err.replace("\n", "")


def test_no_addresses_without_a_stack(home: StackHome, run: Run) -> None:
    code, out, err = run("env")
    assert (code, out) == (2, "")
    assert "ferry-stack up" in err


def test_no_logs_without_a_stack(home: StackHome, run: Run) -> None:
    assert run("logs")[0] == 2


def test_the_last_lines_of_a_log(home: StackHome, run: Run) -> None:
    home.create()
    home.log_of("kafka").write_text("1\n2\n3\n")
    assert run("logs", "kafka", "-n", "2")[:2] == (0, "2\n3\n")


def test_down_without_a_stack_is_done(home: StackHome, run: Run) -> None:
    assert run("down")[0] == 0


def test_wiping_deletes_data_and_keeps_the_ports(home: StackHome, run: Run) -> None:
    home.create()
    (home.kafka / "data").mkdir()
    save_state(home.state_file, StackState(ports={"kafka": 9092}))
    assert run("down", "--wipe")[0] == 0
    assert not home.kafka.exists()
    assert json.loads(home.state_file.read_text())["ports"] == {"kafka": 9092}


def test_two_commands_do_not_change_one_stack_at_once(home: StackHome, run: Run) -> None:
    home.create()
    with exclusive(home.lock_file):
        code, _, err = run("down")
    assert code == 2
    assert f"process {os.getpid()}" in err.replace("\n", " ")


def test_the_lock_is_free_again(home: StackHome) -> None:
    home.create()
    with exclusive(home.lock_file), pytest.raises(StackBusyError), exclusive(home.lock_file):
        pass
    with exclusive(home.lock_file):
        pass


def test_flinks_own_command_needs_a_cluster(home: StackHome, run: Run) -> None:
    code, _, err = run("flink", "list", "--help")
    assert code == 2
    assert "runs no Flink" in err


def test_parts_that_run_elsewhere_are_not_installed(
    home: StackHome, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_KAFKA", "127.0.0.1:9")
    monkeypatch.setenv("FERRY_STORE", "s3://bucket?endpoint=http://127.0.0.1:9")
    assert run("install", "--only", "kafka,minio")[0] == 0
    assert not (home.root.parent / "cache").exists()


def test_an_unknown_part_is_not_installed(home: StackHome, run: Run) -> None:
    code, _, err = run("install", "--only", "redis")
    assert code == 2
    assert "redis" in err
