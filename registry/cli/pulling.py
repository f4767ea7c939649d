"""`ferry pull`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.cli.output import note, print_fields, print_json, short, size_of
from ferryline.registry.cli.progress import transfer_bar
from ferryline.registry.documents import Manifest
from ferryline.registry.errors import ConflictError, UsageError
from ferryline.registry.names import ModelReference

STDOUT = Path("-")


def pull(store: str | None, output: OutputFormat, reference: str, to: Path | None, *, force: bool) -> None:
    """Write the file of a version to disk, whole and checked, or not at all."""
    if to == STDOUT and output is OutputFormat.JSON:
        raise UsageError("-o json and --to - would both write to standard output; leave one of them out")
    registry = open_registry(store)
    manifest = registry.resolve(ModelReference.parse(reference), trusted=True)
    target = None if to == STDOUT else _target(to, manifest)
    if target is not None and not force:
        _require_free(target)
    with transfer_bar("downloading"):
        data = registry.versions(manifest.model).load(manifest)
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        note(f"{manifest.model}@{manifest.version}, {size_of(len(data))}, {manifest.blob.digest}")
        return
    _write(target, data, force=force)
    _print(output, manifest, target)


def _target(to: Path | None, manifest: Manifest) -> Path:
    name = f"{manifest.model}-{manifest.version}.onnx"
    if to is None:
        return Path(name)
    return to / name if to.is_dir() else to


def _require_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists; replace it with --force, or name another file with --to")


def _write(target: Path, data: bytes, *, force: bool) -> None:
    """Write beside the target first, so that nobody ever sees half a file under its name."""
    part: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        part = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        if force:
            part.replace(target)
        else:
            _rename_to_free(part, target)
    except FileExistsError as error:
        raise ConflictError(f"{target} exists; replace it with --force") from error
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _rename_to_free(part: Path, target: Path) -> None:
    """Give `part` its name unless someone was quicker, whose file a plain rename would replace."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links there, as on exFAT: the name is taken first, and then given the file
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            part.replace(target)
        except OSError:
            target.unlink()
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _print(output: OutputFormat, manifest: Manifest, target: Path) -> None:
    if output is OutputFormat.JSON:
        print_json(
            {
                "model": manifest.model,
                "version": manifest.version,
                "digest": manifest.blob.digest,
                "size": manifest.blob.size,
                "file": str(target),
            }
        )
        return
    print_fields(
        [
            ("pulled", f"{manifest.model}@{manifest.version}"),
            ("file", str(target)),
            ("size", size_of(manifest.blob.size)),
            ("digest", f"{short(manifest.blob.digest)} (checked)"),
        ]
    )
