"""The folders in which a user's programs keep things, and how those of the former name become them.

The product was called Modelferry. A folder of that name is moved when a program first asks for its kind,
and a relative link takes its place: programs that still run and settings that name a path in it go on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

APPLICATION = "ferryline"
FORMER = "modelferry"

Kind = Literal["cache", "config", "data", "state"]

_said: set[str] = set()


def user_folder(kind: Kind) -> Path:
    """Returns the user's folder of a kind, which need not exist.

    One of the former name is moved, which is said on standard error.
    """
    folder, former = _named(APPLICATION, kind), _named(FORMER, kind)
    used, note = adopt(folder, former)
    if note:
        _say(note)
    elif kind != "cache" and _are_two(folder, former):
        _say(f"{former} and {folder} both exist, and only the second is used; move into it what you need, "
             "and remove the first")  # fmt: skip
    return used


def default_store() -> str:
    """Returns the URL of a folder under the user's data folder, so that nothing else need be installed."""
    return _store_in(user_folder("data"))


def former_store(store: str) -> str | None:
    """Returns the URL that the default store had before its folder was moved, or None for any other store."""
    folder, former = _named(APPLICATION, "data"), _named(FORMER, "data")
    return _store_in(former) if store == _store_in(folder) and _is_link_to(former, folder) else None


def adopt(folder: Path, former: Path) -> tuple[Path, str]:
    """Moves a folder beside itself if it exists under its former name only, and leaves a link.

    The move is one rename under a lock. A crash leaves the old folder or the new one, and whoever asks next
    makes up for the link.

    Returns:
        The folder to use, which is the former one where that cannot be moved; and what to say, or nothing.
    """
    link = former.with_name(f"{former.name}.link")
    if folder.parent != former.parent or _is_link_to(former, folder):
        return folder, ""
    if not former.is_dir() and not os.path.lexists(link):
        return folder, ""
    try:
        with _alone_in(folder.parent):
            return folder, _move(folder, former, link)
    except OSError as error:
        if os.path.lexists(folder):
            return folder, ""
        return former, f"{former} stays in use: it cannot be moved to {folder} ({error.strerror})"


def _move(folder: Path, former: Path, link: Path) -> str:
    note = ""
    if former.is_dir() and not os.path.lexists(folder):
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        try:
            former.rename(folder)
        except OSError:
            link.unlink()
            raise
        note = f"moved {former} to {folder}, and left a link"
    if link.is_symlink() and not os.path.lexists(former):
        link.rename(former)
    return note


@contextlib.contextmanager
def _alone_in(parent: Path) -> Iterator[None]:
    """Keeps other programs from moving folders in `parent` until the block ends."""
    if sys.platform == "win32":  # no release that ran there had the former name
        yield
        return
    import fcntl

    descriptor = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _named(name: str, kind: Kind) -> Path:
    import platformdirs  # where everything is named, nobody waits for it

    return Path(getattr(platformdirs, f"user_{kind}_dir")(name))


def _store_in(data: Path) -> str:
    return (data / "registry").absolute().as_uri()


def _is_link_to(link: Path, folder: Path) -> bool:
    return link.is_symlink() and _are_one(link, folder)


def _are_two(folder: Path, former: Path) -> bool:
    return folder.is_dir() and former.is_dir() and not _are_one(folder, former)


def _are_one(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _say(text: str) -> None:
    if text not in _said and sys.stderr is not None:
        _said.add(text)
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            sys.stderr.write(f"note: {text}\n")
            sys.stderr.flush()
