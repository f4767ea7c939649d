"""Every command with every extra, and every install line, in environments that have nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.extras import MODULES, Extra
from tests.packaging import install_lines
from tests.packaging.wheels import SCRIPTS, Environment, run, uv, works_or_says_what_is_missing

# the least that a command does beyond its help, for a user who has no server and no model
FIRST = {
    "ferry": ("list",),
    "ferry-trainer": ("run", "absent.toml"),
    "ferry-server": ("--model", "digits", "--check-config"),
    "ferry-sql": ("-e", "SELECT 1"),
    "ferry-dlq": ("summary", "absent.toml"),
    "ferry-stack": ("status",),
    "ferry-demo": ("--help",),
    "ferry-feed": ("--help",),
}


@pytest.fixture(scope="module", params=["", *Extra], ids=lambda extra: extra or "none")
def installed(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    extra = request.param
    made = Environment.made(tmp_path_factory.mktemp(f"extra-{extra or 'none'}") / "env")
    made.install(f"{wheel}[{extra}]" if extra else str(wheel))
    run(uv(), "pip", "check", "--python", str(made.python))
    return made


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_command_works_or_says_in_a_line_what_is_missing(installed: Environment, script: str) -> None:
    told = works_or_says_what_is_missing(installed.ferry(script, "--help"))
    assert not told or "run: pip install 'ferryline[" in told
    done = installed.ferry(script, *FIRST[script])
    assert "Traceback" not in done.stderr, done.stderr
    if told:
        assert (done.returncode, done.stderr) == (2, f"{told}\n")


@pytest.mark.parametrize("line", sorted(install_lines.lines()))
def test_an_install_line_installs_what_its_extras_need(line: str, wheel: Path, tmp_path: Path) -> None:
    made = Environment.made(tmp_path / "env")
    if ".whl" not in line:  # adds to what is installed
        made.install(str(wheel))
    made.install(*install_lines.requirements(line, wheel))
    for extra in install_lines.extras_of(line, wheel):
        found = f"assert all(map(find_spec, {MODULES[Extra(extra)]!r}))"
        run(str(made.python), "-c", f"from importlib.util import find_spec; {found}")
