"""How a command starts and ends as a process: what it imports, closed streams, the shell's questions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.cli import completion, options
from registry.cli.app import FerryGroup
from registry.stores.folder import FolderStore
from tests.registry.ferry import Ferry

FERRY = [sys.executable, "-c", "from registry.cli.app import main; main()"]


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported by its end."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"sys.argv = {['ferry', *arguments]!r}\n"
        "from registry.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_waits_for_no_library() -> None:
    heavy = {"pydantic", "rich", "minio", "urllib3", "numpy", "onnx", "orjson", "asyncio", "platformdirs"}
    assert imported("--help") & heavy == set()
    assert imported("promote", "--help") & (heavy - {"pydantic"}) == set()  # typer asks it for defaults


@pytest.mark.usefixtures("published")
def test_a_promotion_waits_for_no_table_and_no_runtime(store_url: str) -> None:
    heavy = {"rich", "minio", "urllib3", "numpy", "onnx", "asyncio", "pydantic_settings", "cryptography"}
    assert imported("promote", "digits@1", "--store", store_url) & heavy == set()


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_fault(store_url: str, closed: str) -> None:
    command = ["sh", "-c", f'"$@" {closed}', "sh", *FERRY, "promote", "digits@1", "--store", store_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    lost = subprocess.run(
        [*command[:-3], "digits@9", *command[-2:]], capture_output=True, text=True, check=False
    )
    assert (lost.returncode, "Traceback" in lost.stderr) == (3, False)


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


def completions(typed: str, store_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = typed.split(" ")
    asked = {
        "_FERRY_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "FERRY_STORE": store_url,
    }
    script = "import sys; sys.argv = ['ferry']; from registry.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **asked, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("published")
def test_the_shell_is_answered(store_url: str) -> None:
    done = completions("ferry promote digits@", store_url)
    assert (done.stdout.split(), done.stderr) == (["digits@3", "digits@2", "digits@1"], "")


def test_a_store_that_fails_is_not_told_to_the_shell() -> None:
    done = completions("ferry show dig", "s3://models?endpoint=http://127.0.0.1:1")
    assert (done.stdout.strip(), done.stderr) == ("", "")


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
    monkeypatch.setattr(FolderStore, "folders", lambda *_: iter([str(release.wait(30))]))
    assert completion.complete("dig", versions=False) == []
    release.set()


def test_an_empty_registry_lists_nothing(ferry: Ferry, tmp_path: Path) -> None:
    listed = ferry("list")
    assert (listed.code, listed.out.split()) == (0, ["MODEL", "NEWEST", "CHANNELS"])
    assert ferry("status").code == 0
