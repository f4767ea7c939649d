from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ferryline.flink_scoring.sql import cli
from ferryline.flink_scoring.sql.client import (
    ClientPlan,
    client_command,
    client_environ,
    find_client,
    init_script,
    joined_statements,
)
from ferryline.flink_scoring.sql.script import pass_on
from ferryline.registry.errors import FerryError, UsageError
from tests.flink_scoring.sql_models import sum_model

PLAN = ClientPlan(("Predict", "Both"), Path("functions.toml"))


@pytest.fixture
def flink(tmp_path: Path) -> Path:
    """A folder that looks like a whole Flink."""
    for name in ("bin/sql-client.sh", "opt/flink-sql-gateway-2.3.0.jar"):
        (tmp_path / "flink" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flink" / name).touch()
    return tmp_path / "flink"


def test_the_client_begins_with_the_functions_and_what_python_functions_need() -> None:
    script = init_script(PLAN, {})
    assert f"SET 'python.client.executable' = '{sys.executable}';\n" in script
    assert "SET 'python.fn-execution.arrow.batch.size' = '10000';\n" in script
    assert "SET 'table.optimizer.non-deterministic-update.strategy' = 'TRY_RESOLVE';\n" in script
    creates = [line for line in script.splitlines() if line.startswith("CREATE")]
    assert creates == [
        f"CREATE TEMPORARY SYSTEM FUNCTION `{name}` "
        f"AS 'ferryline.flink_scoring.sql.functions.{name}' LANGUAGE PYTHON;"
        for name in ("Predict", "Both")
    ]
    assert "tableau" not in script


def test_the_workers_python_is_set_only_where_they_run_on_this_machine() -> None:
    def sets_it(flink: str | None, environ: dict[str, str]) -> bool:
        return "'python.executable'" in init_script(ClientPlan((), Path("f"), flink), environ)

    assert sets_it(None, {})
    assert sets_it("http://127.0.0.1:8081", {"FLINK_CONF_DIR": "/etc/flink"})
    assert not sets_it(None, {"FLINK_CONF_DIR": "/etc/flink"})
    assert not sets_it("http://flink.example:8081", {})


def test_the_command_is_the_stock_client_for_the_cluster_named(flink: Path) -> None:
    environ = {"FLINK_HOME": str(flink)}
    plan = ClientPlan((), Path("f"), "https://flink.example", Path("report.sql"), ("-j", "my.jar"))
    assert client_command(plan, Path("init.sql"), environ) == [
        str(flink / "bin" / "sql-client.sh"), "-i", "init.sql", "-f", "report.sql",
        "-Dexecution.target=remote", "-Drest.address=flink.example", "-Drest.port=443",
        "-Dsecurity.ssl.rest.enabled=true", "-j", "my.jar",
    ]  # fmt: skip
    assert client_command(PLAN, Path("i"), environ) == [str(flink / "bin" / "sql-client.sh"), "-i", "i"]
    with pytest.raises(UsageError, match="write http://host:8081"):
        client_command(ClientPlan((), Path("f"), "flink:8081"), Path("i"), environ)


def test_a_flink_without_a_gateway_says_where_there_is_one(flink: Path) -> None:
    (flink / "opt" / "flink-sql-gateway-2.3.0.jar").unlink()
    with pytest.raises(UsageError, match="use `ferry-stack sql` for the local stack"):
        find_client({"FLINK_HOME": str(flink)})
    elsewhere = flink.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "flink-sql-gateway-9.jar").touch()
    find_client({"FLINK_HOME": str(flink), "FLINK_OPT_DIR": str(elsewhere)})
    with pytest.raises(UsageError, match="let FLINK_HOME name a whole one"):
        find_client({"FLINK_HOME": str(elsewhere)})


def test_the_helper_process_finds_the_file() -> None:
    environ = client_environ(PLAN, {"JAVA_HOME": "/java", "OTHER": "kept"})
    assert environ == {
        "JAVA_HOME": "/java", "OTHER": "kept", "FERRY_SQL_FUNCTIONS": str(Path("functions.toml").absolute())
    }  # fmt: skip


@pytest.mark.parametrize(
    "passed",
    [["-Dexecution.attached=true", "-pyfs", "more.py", "-D", "x.y=1", "-hist", "history"], ["-j", "a.jar"]],
)
def test_the_clients_own_options_reach_it_whole_and_in_order(passed: list[str]) -> None:
    command = typer.main.get_command(cli.app)
    context = command.make_context("ferry-sql", ["-e", "SELECT 1", *passed, "-f", "x.sql", "-eSELECT 2"])
    assert context.args == passed
    # an older typer leaves some values for the command to convert
    assert [*context.params["execute"], str(context.params["file"])] == ["SELECT 1", "SELECT 2", "x.sql"]


def test_statements_are_ended_once() -> None:
    assert joined_statements(["SELECT 1", " SELECT 2; "]) == "SELECT 1\n;\nSELECT 2\n;\n"
    several = "SELECT 'a;b', `c;d`; -- and; so on\nSELECT 3"
    assert joined_statements([several]) == "SELECT 'a;b', `c;d`;\n -- and; so on\nSELECT 3\n;\n"


def test_the_functions_are_shown_with_what_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wine.onnx").write_bytes(sum_model(2))
    file = tmp_path / "functions.toml"
    file.write_text('[functions.Predict]\nmodel = "./wine.onnx"\narguments = ["sugar", "acid"]')
    monkeypatch.setenv("FERRY_STORE", (tmp_path / "registry").as_uri())
    result = CliRunner().invoke(cli.app, ["--functions", str(file), "--list"])
    assert result.exit_code == 0, result.output
    assert "Predict(sugar DOUBLE, acid DOUBLE)  DOUBLE   ./wine.onnx" in result.stderr


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_complaint_is_seen_wherever_the_pipe_cuts_it(size: int) -> None:
    class Pieces(io.BytesIO):
        def read1(self, _: int | None = -1) -> bytes:
            return super().read1(size)

    printed = b"Flink SQL> \x1b[31;1m[ERROR] Could not execute SQL statement."
    passed_on = io.BytesIO()
    assert pass_on(Pieces(printed), passed_on)
    assert passed_on.getvalue() == printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--list"], "name one with --functions or FERRY_SQL_FUNCTIONS"),
        (["-e", "SELECT 1", "-f", "x.sql"], "-e and -f both say what to run"),
        (["--functions", "none.toml"], "none.toml: No such file or directory"),
    ],
)
def test_wrong_usage_is_told_before_a_client_opens(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FERRY_SQL_FUNCTIONS", raising=False)
    with pytest.raises(FerryError, match=says):
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
