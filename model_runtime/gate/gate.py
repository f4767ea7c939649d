"""The load gate: no model is published or served that did not pass it."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import orjson

from ferryline.model_runtime.gate.errors import GateUnavailableError
from ferryline.model_runtime.gate.handover import handed_over
from ferryline.model_runtime.gate.keeper import GateKeeper, shared_keeper
from ferryline.model_runtime.gate.limits import MIB, GateLimits
from ferryline.model_runtime.gate.protocol import Request
from ferryline.model_runtime.gate.verdicts import VerdictMemory, verdict_key
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import GoldenRows, Manifest, ModelFacts
from ferryline.registry.errors import RefusedError, UsageError
from ferryline.registry.systems import require_linux

REMEMBERED = 64


class Gate:
    """Judges model files under `limits`, in children of `keeper`; safe to use from many threads.

    This process never parses a file: all it does is bounded by the file's size and 2 MiB of answer.

    Args:
        limits: what a model may hold and use.
        keeper: the helper; None for the one that the whole program shares.

    Raises:
        UsageError: this is not Linux.
    """

    def __init__(self, limits: GateLimits | None = None, *, keeper: GateKeeper | None = None) -> None:
        require_linux("judging a model")  # its children are confined as only Linux can
        self.limits = limits or GateLimits()
        self._keeper = keeper or shared_keeper()
        self._passed: OrderedDict[str, ModelFacts] = OrderedDict()

    def admit(self, data: bytes, golden: GoldenRows | None = None) -> ModelFacts:
        """Judge a file that is to be published.

        Args:
            data: the file.
            golden: rows it must give the outputs of; None to run it on zeros.

        Returns:
            The facts of the file.

        Raises:
            RefusedError: a gate refuses it.
            GateUnavailableError: it could not be judged; worth another try.
        """
        self.require_size(len(data))
        digest, rows = digest_of(data), _encode(golden)
        key = verdict_key(digest, self.limits, rows)
        facts = self._passed.get(key)
        if facts is None:
            with _resources(), handed_over(data, "candidate") as file:
                facts = self._judge(file, len(data), digest, rows)
            self._remember(key, facts)
        return facts

    def admit_file(self, path: Path, manifest: Manifest) -> ModelFacts:
        """Judge a verified file of the private cache that is to serve, or recall that it passed.

        Args:
            path: the file, which nobody but this user can change.
            manifest: the version it is the file of; its golden rows must come out.

        Returns:
            The facts of the file; that they are those of the manifest is for the caller to compare.

        Raises:
            RefusedError: a gate refuses it.
            GateUnavailableError: it could not be judged; worth another try.
            UsageError: the file is not there any more.
        """
        self.require_size(manifest.blob.size)
        rows, memory = _encode(manifest.golden), VerdictMemory(path)
        key = verdict_key(manifest.blob.digest, self.limits, rows)
        facts = memory.recall(key)
        if facts is None:
            with _resources():
                facts = self._judge_file(path, manifest, rows)
            memory.keep(key, facts)
        return facts

    def require_size(self, size: int) -> None:
        """What needs no file yet: whether one of `size` bytes may be fetched at all.

        Raises:
            RefusedError: it is too big (gate `size`).
        """
        if size > self.limits.max_bytes:
            raise RefusedError(
                "size",
                f"the file has {size} bytes, more than {self.limits.max_bytes // MIB} MiB",
                "Make the model smaller, or raise FERRY_GATE_MAX_FILE_MIB",
            )

    def _judge_file(self, path: Path, manifest: Manifest, rows: bytes | None) -> ModelFacts:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise UsageError(
                f"{path} vanished from the cache while it was judged; it is fetched again"
            ) from error
        try:
            size = os.fstat(file).st_size
            if size != manifest.blob.size:
                raise RefusedError(
                    "size",
                    f"the file has {size} bytes, and its manifest says {manifest.blob.size}",
                    "Publish the version again and promote that",
                )
            return self._judge(file, size, manifest.blob.digest, rows)
        finally:
            os.close(file)

    def _judge(self, file: int, size: int, digest: str, rows: bytes | None) -> ModelFacts:
        request = Request(size, digest, self.limits)
        if rows is None:
            return self._keeper.judge(request, file)
        with handed_over(rows, "golden-rows") as golden:
            return self._keeper.judge(request, file, golden)

    def _remember(self, key: str, facts: ModelFacts) -> None:
        self._passed[key] = facts
        with contextlib.suppress(KeyError):  # another thread was as quick
            while len(self._passed) > REMEMBERED:
                self._passed.popitem(last=False)


@contextlib.contextmanager
def _resources() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # no descriptor or no memory for it
        raise GateUnavailableError(f"the load gate cannot judge for now: {error}") from error


def _encode(golden: GoldenRows | None) -> bytes | None:
    return (
        None if golden is None else orjson.dumps(golden.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    )
