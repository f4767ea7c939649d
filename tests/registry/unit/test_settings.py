from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.errors import UsageError
from ferryline.registry.folders import default_store
from ferryline.registry.settings import Settings, config_file, load_settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config.toml"
    file.touch()
    monkeypatch.setenv("FERRY_CONFIG", str(file))
    return file


def test_flags_go_before_variables_before_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('store = "file:///file"\nkafka = "file:1"\ncache = "/file"\n')
    monkeypatch.setenv("FERRY_STORE", "file:///variable")
    monkeypatch.setenv("FERRY_KAFKA", "variable:1")
    found = load_settings(store="file:///flag", kafka=None)
    assert (found.store, found.kafka, found.cache) == ("file:///flag", "variable:1", Path("/file"))


def test_an_empty_variable_is_as_good_as_unset(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_KAFKA", "")
    assert load_settings().kafka == Settings.model_fields["kafka"].default


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('sotre = "x"', "did you mean 'store'"),
        ('Store = "x"', "did you mean 'store'"),
        ('zzz = "x"', "it may say cache, fresh_for, kafka"),
        ("[store]\na = 1", "'store' in"),
        ("kafka = 1", "'kafka' in"),
    ],
)
def test_what_the_file_says_wrong_is_named(config: Path, line: str, hint: str) -> None:
    config.write_text(line)
    with pytest.raises(UsageError, match=str(config)) as refused:
        load_settings()
    assert hint in str(refused.value)


def test_what_other_programs_are_told_is_left_to_them(config: Path) -> None:
    config.write_text("server_port = 1\ntrainer_anything = 2\n")
    assert load_settings().kafka


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_SIGNATURES", "perhaps")
    with pytest.raises(UsageError, match="FERRY_SIGNATURES is wrong"):
        load_settings()


def test_a_named_file_must_be_there_and_the_default_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match=r"FERRY_CONFIG names .*none\.toml, and there is no such file"):
        load_settings()
    monkeypatch.delenv("FERRY_CONFIG")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert not config_file().exists()
    assert load_settings().store == default_store()


@pytest.mark.parametrize("content", [b"store = ", b"\xff"])
def test_a_file_that_is_no_toml_is_said_so(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    with pytest.raises(UsageError, match="is not TOML"):
        load_settings()


def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_CONFIG", str(tmp_path))
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings()
