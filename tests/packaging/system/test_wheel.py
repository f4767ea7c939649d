"""What a user gets who installs the wheel and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ferryline.registry.extras import Extra
from tests.packaging import install_lines
from tests.packaging.wheels import ROOT, SCRIPTS, Environment, run, uv, works_or_says_what_is_missing

ROOMS = sorted(
    path.name for path in (ROOT / "ferryline").iterdir() if path.is_dir() and path.name != "__pycache__"
)


def test_one_package_holds_every_file_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"ferryline"}
    tracked = run("git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS)
    expected = {f"ferryline/{name}" for name in tracked.stdout.split() if (ROOT / name).exists()}
    assert {name for name in expected if not name.endswith(".md")} <= names
    assert {f"ferryline/{name}" for name in ("__init__.py", "py.typed")} <= names


def test_no_message_names_an_install_command_that_is_not_tested() -> None:
    assert install_lines.literals_in_code() == []


def test_every_install_line_names_what_can_be_installed(wheel: Path, base: Environment) -> None:
    lines = install_lines.lines()
    assert len(lines) >= 8
    extras = {extra for line in lines for extra in install_lines.extras_of(line, wheel)}
    assert extras == set(Extra)
    # all at once, as one resolution takes seconds; each line by itself is run in the night
    everything = f"{wheel}[{','.join(sorted(extras))}]"
    dry = run(uv(), "pip", "install", "--dry-run", "--python", str(base.python), everything)
    assert "does not have an extra" not in dry.stderr
    assert "- ferryline" not in dry.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_command_works_without_extras_or_says_in_a_line_which_one(base: Environment, script: str) -> None:
    told = works_or_says_what_is_missing(base.ferry(script, "--help"))
    assert (script == "ferry") == (told == "")
    assert script == "ferry" or "run: pip install 'ferryline[" in told


def test_the_catalogue_works_without_extras(base: Environment, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"not looked at")
    assert works_or_says_what_is_missing(base.ferry("ferry", "list")) == ""
    told = works_or_says_what_is_missing(base.ferry("ferry", "publish", "digits", str(model)))
    assert told.startswith(
        "error: judging a model needs numpy and 3 more, which are missing; run: pip install"
    )


def test_folders_of_the_users_own_are_not_taken_for_ours(base: Environment, tmp_path: Path) -> None:
    for name in ("protos", "trainer", "registry", "deploy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            "raise AssertionError('a folder of the user was imported')"
        )
    done = base.ferry("ferry", "list", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    missing = run(str(base.python), "-c", "import ferryline.grpc_server.client", folder=tmp_path, status=1)
    assert "needs grpc and 2 more, which are missing; run: pip install 'ferryline[client]'" in missing.stderr
