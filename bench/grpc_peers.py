"""ferry-server beside other inference servers: MLServer with the same model, and Triton's C++ front end.

Unary 1x64 FP32 at concurrency 8, the same bytes to each: MLServer at its best setting for this (no parallel
workers: models run in the process that answers) and at its default (one). Triton's front end without a model
answers ServerLive, and so does ours: what a front end costs alone. A peer that cannot be installed or started
here is left out, and the reason is printed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench.environments import PeerMissingError
from bench.grpc_load import CONCURRENCY, best_client, measure, versus
from bench.grpc_servers import INFER, LIVE, Target, ferry_server
from bench.grpc_unary import FEATURES, MODEL, digits_model, publish_digits, request_bytes
from bench.measure import Comparison, parse_arguments, report
from bench.peers import mlserver, triton_front_end

Peer = Callable[[Path], AbstractContextManager[Target]]


def beside(
    ours: Target, theirs: Target, name: str, method: str, *, seconds: float, rounds: int
) -> list[Comparison]:
    """One method on both."""
    client_name, client = best_client()
    request = request_bytes() if method == INFER else b""
    what = f"gRPC unary 1x{FEATURES}" if method == INFER else "gRPC ServerLive"
    return versus(
        lambda: measure(ours, request, seconds, client, method),
        lambda: measure(theirs, request, seconds, client, method),
        name,
        client=client_name,
        what=f"{what}, {CONCURRENCY} at once",
        rounds=rounds,
    )


def measurements(folder: Path, *, quick: bool) -> Iterator[Comparison]:
    """All of them, as far as there are peers here."""
    store, file = (folder / "registry").as_uri(), folder / "digits.onnx"
    publish_digits(store)
    file.write_bytes(digits_model())
    peers: list[tuple[str, str, Peer]] = [
        ("MLServer 1.7.1, 0 workers", INFER, lambda own: mlserver(own, MODEL, file, workers=0)),
        ("MLServer 1.7.1, default", INFER, lambda own: mlserver(own, MODEL, file, workers=1)),
        ("Triton's C++ front end", LIVE, triton_front_end),
    ]
    seconds, rounds = (1.0, 3) if quick else (2.0, 9)
    with ferry_server(store, folder / "cache", [MODEL]) as ours:
        for name, method, peer in peers:
            own = folder / name.replace(" ", "-")
            own.mkdir()
            try:
                with ExitStack() as stack:
                    theirs = stack.enter_context(peer(own))
                    yield from beside(ours, theirs, name, method, seconds=seconds, rounds=rounds)
            except PeerMissingError as error:
                sys.stderr.write(f"left out: {name}: {error}\n")


def main() -> None:
    """Print the comparisons."""
    arguments = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        found = list(measurements(Path(folder), quick=arguments.quick))
    report(found, arguments)


if __name__ == "__main__":
    main()
