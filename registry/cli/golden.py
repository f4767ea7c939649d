"""Golden rows from a file: inputs, and the outputs that the model must give for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import orjson
from pydantic import ValidationError

from ferryline.registry.documents import GoldenRows
from ferryline.registry.errors import UsageError
from ferryline.registry.extras import Extra, require_extra

LARGEST = 16 << 20
"""Bytes; golden rows go into the manifest, which everyone reads."""

_FORMS = '{"inputs": {NAME: [rows]}, "outputs": {NAME: [rows]}} as .json, or arrays inputs/NAME as .npz'


def read_golden(file: Path) -> GoldenRows:
    """The golden rows in a `.json` or `.npz` file.

    Raises:
        UsageError: the file cannot be read, or does not hold golden rows.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} is larger than {LARGEST >> 20} MiB; some ten rows tell as much")
        raw = _from_npz(file) if file.suffix == ".npz" else orjson.loads(file.read_bytes())
        rows = GoldenRows.model_validate(raw)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValidationError, ValueError, EOFError, BadZipFile) as error:
        raise UsageError(f"{file} holds no golden rows, which are {_FORMS}: {_first_line(error)}") from error
    if not rows.inputs or not rows.outputs:
        raise UsageError(f"{file} has no inputs or no outputs; golden rows are {_FORMS}")
    return rows


def _from_npz(file: Path) -> dict[str, dict[str, Any]]:
    require_extra(Extra.RUNTIME, f"reading {file.name}", ["numpy"])
    import numpy as np

    raw: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}}
    with np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, _, name = key.partition("/")
            if kind not in raw or not name:
                raise ValueError(f"array {key!r} is neither inputs/NAME nor outputs/NAME")
            raw[kind][name] = arrays[key].tolist()
    return raw


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
    return str(error).partition("\n")[0]
