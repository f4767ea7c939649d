"""Runs the SQL client on a script, and says whether all of it went well."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

FAILED = 1

# the client says what it says in colour, to a pipe too, and often behind the statement on the same line;
# rows of a result have no colour, and may hold these words even at the beginning of a line
_COMPLAINT = re.compile(rb"\x1b\[[0-9;]{0,20}m\[ERROR\] ")
_LONGEST = 32
"""Bytes of a complaint's beginning at most."""
_CHUNK = 64 * 1024


def run_script(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the client, passing on what it prints as it comes.

    Returns:
        Its exit status, and 1 where it complained: by itself it ends with 0 although a statement failed.
    """
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as client:  # noqa: S603 - the client's own command
        if client.stdout is None:
            raise TypeError("a pipe was asked for")
        complained = pass_on(client.stdout, sys.stdout.buffer)
    return client.returncode or (FAILED if complained else 0)


def pass_on(source: IO[bytes], target: IO[bytes]) -> bool:
    """Copy until the end; whether a complaint was in it."""
    complained, tail = False, b""
    while chunk := getattr(source, "read1", source.read)(_CHUNK):
        target.write(chunk)
        target.flush()
        text = tail + chunk
        complained |= _COMPLAINT.search(text) is not None
        tail = text[-_LONGEST:]
    return complained
