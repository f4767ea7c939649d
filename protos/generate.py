"""Writes the generated code anew: `python -m ferryline.protos.generate`, from the root of the project."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

SOURCE = "ferryline/protos/grpc_service.proto"
GENERATED = (
    "ferryline/protos/grpc_service_pb2.py",
    "ferryline/protos/grpc_service_pb2.pyi",
    "ferryline/protos/grpc_service_pb2_grpc.py",
)

_SHARED_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_descriptor_pool.DescriptorPool()"


def generate(root: Path, target: Path) -> list[Path]:
    """Generate the code of `root`'s protocol below `target`.

    Raises:
        RuntimeError: protoc failed, or wrote code that cannot be moved to a pool of its own.
    """
    well_known = str(resources.files("grpc_tools") / "_proto")
    status = protoc.main(
        [
            "protoc",
            f"-I{root}",
            f"-I{well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            str(root / SOURCE),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    _use_own_pool(target / GENERATED[0])
    return [target / name for name in GENERATED]


def _use_own_pool(module: Path) -> None:
    code = module.read_text(encoding="utf-8")
    if code.count(_SHARED_POOL) != 1:
        raise RuntimeError(f"protoc no longer writes {_SHARED_POOL} once; look at {module}")
    module.write_text(code.replace(_SHARED_POOL, _OWN_POOL), encoding="utf-8")


if __name__ == "__main__":
    for written in generate(Path(), Path()):
        sys.stderr.write(f"wrote {written}\n")
