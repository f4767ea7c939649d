"""`ferry-server token`: makes a token, for its owner and for the file."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from ferryline.grpc_server.security.rights import Right
from ferryline.grpc_server.security.tokens import add_to_file, make_token
from ferryline.registry.cli.output import note
from ferryline.registry.documents import utc_now
from ferryline.registry.durations import parse_duration
from ferryline.registry.errors import UsageError


def mint(name: str, rights: str, span: str | None, file: Path | None) -> None:
    """Print a new token on standard output, and add it to the file where there is one.

    Raises:
        UsageError: the name, a right or the span is none, or the file is not in order.
        ConflictError: the file has a token of that name.
    """
    try:
        end = None if span is None else utc_now() + timedelta(seconds=parse_duration(span))
    except ValueError as error:
        raise UsageError(f"--not-after is wrong: {error}") from error
    token, table = make_token(name, _rights(rights), end)
    if file is None:
        for line in ("for the file of tokens:", *table.splitlines()):
            note(line)
    else:
        add_to_file(file, name, table)
        note(f"added {name} to {file}; this is the token, which is kept nowhere else:")
    sys.stdout.write(f"{token}\n")


def _rights(text: str) -> list[Right]:
    words = text.replace(",", " ").split()
    unknown = sorted(set(words) - {right.value for right in Right})
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no right; there are {' and '.join(Right)}")
    return [Right(word) for word in words]
