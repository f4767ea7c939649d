"""What a command says of its own use: help, examples, and what completes a word."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.registry.cli import completion, options
from ferryline.registry.cli.app import FerryGroup
from ferryline.registry.stores.folder import FolderStore
from tests.registry.ferry import Ferry
from tests.support.waiting import DEADLINE


def test_a_wrong_name_is_answered_with_the_right_one(ferry: Ferry) -> None:
    assert "Did you mean 'promote'?" in ferry("promte").err


def test_every_command_has_examples_that_begin_with_it(ferry: Ferry) -> None:
    listing = [line.split() for line in ferry("--help").out.splitlines() if line.startswith("  ")]
    for commands in FerryGroup.sections.values():
        for info in commands.registered_commands:
            name = info.name or getattr(info.callback, "__name__", "")
            assert [words for words in listing if words and words[0] == name], name
            examples = ferry(name, "--help").out.partition("Examples:\n")[2].splitlines()
            assert examples, name
            assert all(line.startswith(f"  ferry {name}") for line in examples), name


def test_help_has_no_colours_in_a_pipe(ferry: Ferry) -> None:
    assert "\x1b" not in ferry("--help").out


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("complete", "incomplete", "offered"),
    [
        (options.references, "dig", ["digits"]),
        (options.references, "digits@2", ["digits@2"]),
        (options.references, "digits:", ["digits:production"]),
        (options.channels, "digits:p", ["digits:production"]),
        (options.channels, "digits@", []),
        (options.channels, "nothing", []),
        (options.models, "", ["digits"]),
        (options.references, "BAD/@", []),
    ],
)
def test_what_there_is_completes(
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    complete: Callable[[str], list[str]],
    incomplete: str,
    offered: list[str],
) -> None:
    monkeypatch.setenv("FERRY_STORE", store_url)
    assert complete(incomplete) == offered


@pytest.mark.parametrize("store", ["s3://[", "ftp://x", "file:///dev/null/x"])
def test_a_store_that_fails_completes_nothing(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_STORE", store)
    assert options.references("dig") == []


@pytest.mark.usefixtures("published")
def test_a_slow_store_is_not_waited_for(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setenv("FERRY_STORE", store_url)
    monkeypatch.setattr(completion, "PATIENCE", 0.05)
    monkeypatch.setattr(FolderStore, "folders", lambda *_: iter([str(release.wait(DEADLINE))]))
    assert completion.complete("dig", versions=False) == []
    release.set()


def test_an_empty_registry_lists_nothing(ferry: Ferry, tmp_path: Path) -> None:
    listed = ferry("list")
    assert (listed.code, listed.out.split()) == (0, ["MODEL", "NEWEST", "CHANNELS"])
    assert ferry("status").code == 0
