"""`ferry-server --check-config`: what would be served, and what is amiss."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.grpc_server import model_files
from tests.grpc_server.server_in_process import Site


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    return made


def checked(site: Site, *models: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return site.run_to_its_end(*models, flags=["--check-config", *flags])


def test_a_check_shows_what_would_be_served(site: Site) -> None:
    site.publish(model_files.plus(6), "other")
    ended = checked(site, "m", "other", flags=("--batch", "m=32:500us"))
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["m", "production", "1", "1"] in [line[:4] for line in lines]
    assert "32 rows, 500 µs" in ended.stdout
    assert f"store       {site.store}" in ended.stdout


@pytest.mark.parametrize(
    ("models", "flags", "code", "words"),
    [
        (["m", "later"], (), 3, "nothing is promoted in channel 'production' of model 'later'"),
        (["m", "later"], ("--optional", "later"), 0, ""),
        (["m"], ("--optional", "other"), 2, "model other is optional and not among those to serve"),
        (["m"], ("--tls-certificate", "/nowhere.pem", "--tls-key", "/nowhere.key"), 2, "cannot be read"),
        (["m"], ("--tokens", "/nowhere.toml"), 2, "/nowhere.toml cannot be read"),
        (["m"], ("--batch", "other=3"), 2, "which is not among those to serve"),
        (["m"], ("--store", "s3://models?endpoint=http://127.0.0.1:1"), 6, "127.0.0.1:1"),
    ],
)
def test_a_check_says_what_is_amiss(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    models: list[str],
    flags: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    ended = checked(site, *models, flags=flags)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_check_needs_no_port_and_leaves_nothing_behind(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        cache = site.folder / "cache"
        shutil.rmtree(cache)
        ended = checked(site, flags=("--port", server.address.rpartition(":")[2]))
        assert ended.returncode == 0, ended.stderr
        assert not Path(cache).exists()
