"""Every line that tells anybody to install this product, from documents and from the messages of the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from ferryline.registry.extras import Extra, how_to_install
from tests.packaging.wheels import ROOT

_LINE = re.compile(r"(?:uv )?pip install [^\n`|#]*ferryline[^\n`|#)]*")
_WHEEL = re.compile(r"dist/ferryline-[^\s'\[]*\.whl")
_LITERAL = re.compile(r"pip install|\bferryline\[[a-z]")


def documents() -> list[Path]:
    """What users read."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted(ROOT.glob("examples/**/*.md")),
    ]


def lines() -> dict[str, str]:
    """Each install line, with the place where one reads it."""
    found = {line: path.name for path in documents() for line in lines_of(path.read_text())}
    for extra in Extra:
        found.setdefault(how_to_install(extra).removeprefix("run: "), "a message")
    return found


def lines_of(text: str) -> Iterator[str]:
    """The install lines in a text."""
    for match in _LINE.finditer(text):
        yield match[0].strip()


def requirements(line: str, wheel: Path) -> list[str]:
    """What a line installs, where `dist/` holds this wheel."""
    assert all(named[0] == f"dist/{wheel.name}" for named in _WHEEL.finditer(line)), (
        f"{line}: now {wheel.name}"
    )
    words = shlex.split(_WHEEL.sub(str(wheel), line))
    return [word for word in words[words.index("install") + 1 :] if "ferryline" in word]


def extras_of(line: str, wheel: Path) -> set[str]:
    """The extras that a line names."""
    return {
        extra
        for what in requirements(line, wheel)
        for listed in re.findall(r"\[([a-z,]*)\]$", what)
        for extra in listed.split(",")
    }


def literals_in_code() -> list[str]:
    """Places in the code that name an install command by themselves and not by `how_to_install`."""
    rooms = [path for path in (ROOT / "ferryline").iterdir() if path.is_dir()]
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for room in sorted(rooms)
        for path in sorted(room.glob("**/*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if _LITERAL.search(line) and path.name != "extras.py"
    ]
