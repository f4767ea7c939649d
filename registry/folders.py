"""The folders in which a user's programs keep things, and how those of the former name become them.

The product was called Modelferry. A folder of that name is moved when a program first asks for its kind,
and a link takes its place: programs that still run and settings that name a path in it go on. The move is one
rename, so a crash leaves the old folder or the new one, and the next start makes up for the link.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

APPLICATION = "ferryline"
FORMER = "modelferry"

Kind = Literal["cache", "config", "data", "state"]


def user_folder(kind: Kind) -> Path:
    """Returns the user's folder of a kind, which need not exist.

    One of the former name is moved, which is said on standard error.
    """
    folder, former = _named(APPLICATION, kind), _named(FORMER, kind)
    _finish_link(folder, former)
    if not os.path.lexists(former) or _is_link_to(former, folder):
        return folder
    if not os.path.lexists(folder):
        return _move(folder, former)
    if kind != "cache":
        _say(
            f"{former} and {folder} exist both, and only the second is used; "
            "move into it what you need from the first, and remove the first"
        )
    return folder


def default_store() -> str:
    """Returns the URL of a folder under the user's data folder, so that nothing else need be installed."""
    return _store_in(user_folder("data"))


def former_store(store: str) -> str | None:
    """Returns the URL that the default store had under the former name; None where `store` is another."""
    return _store_in(_named(FORMER, "data")) if store == _store_in(_named(APPLICATION, "data")) else None


def _named(name: str, kind: Kind) -> Path:
    import platformdirs  # where everything is named, nobody waits for it

    return Path(getattr(platformdirs, f"user_{kind}_dir")(name))


def _store_in(data: Path) -> str:
    return (data / "registry").absolute().as_uri()


def _move(folder: Path, former: Path) -> Path:
    link = _prepared_link(former)
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder, target_is_directory=True)
        former.rename(folder)
    except OSError as error:
        if os.path.lexists(folder):  # another program moved it
            return folder
        _say(f"{former} stays in use: it cannot be moved to {folder} ({error.strerror})")
        return former
    _say(f"moved {former} to {folder}, and left a link")
    _finish_link(folder, former)
    return folder


def _finish_link(folder: Path, former: Path) -> None:
    link = _prepared_link(former)
    try:
        if link.is_symlink() and folder.is_dir() and not os.path.lexists(former):
            link.rename(former)
    except OSError:
        return  # another program did


def _prepared_link(former: Path) -> Path:
    return former.with_name(f"{former.name}.link")


def _is_link_to(link: Path, folder: Path) -> bool:
    return link.is_symlink() and link.readlink() == folder


def _say(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")
