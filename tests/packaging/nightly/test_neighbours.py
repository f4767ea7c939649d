"""The wheel beside a package that has a `trainer` of its own, whichever was installed first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.wheels import Environment, run, uv, works_or_says_what_is_missing

NEIGHBOUR = "coqui-tts-trainer"


@pytest.mark.parametrize("theirs_last", [True, False], ids=["theirs last", "ours last"])
def test_neither_overwrites_the_other(wheel: Path, tmp_path: Path, *, theirs_last: bool) -> None:
    made = Environment.made(tmp_path / "env")
    order = [f"{wheel}[trainer]", NEIGHBOUR]
    for what in order if theirs_last else reversed(order):
        # without its own requirements, which are gigabytes and no part of the question
        made.install(what, options=["--no-deps"] if what == NEIGHBOUR else [])
    assert works_or_says_what_is_missing(made.ferry("ferry-trainer", "--help")) == ""
    code = (
        "from importlib.util import find_spec as f; print(f('trainer').origin, f('ferryline.trainer').origin)"
    )
    theirs, ours = map(Path, run(str(made.python), "-c", code, folder=tmp_path).stdout.split())
    assert theirs.read_text() != ours.read_text()
    run(uv(), "pip", "uninstall", "--quiet", "--python", str(made.python), NEIGHBOUR)
    assert works_or_says_what_is_missing(made.ferry("ferry-trainer", "--help")) == ""
    assert ours.exists()
    assert not theirs.exists()
