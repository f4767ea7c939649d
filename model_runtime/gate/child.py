"""The confined child: judges one candidate, says the verdict, and ends."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import NoReturn

from ferryline.model_runtime.gate.confinement import confine
from ferryline.model_runtime.gate.exhaustion import out_of_memory
from ferryline.model_runtime.gate.handover import write_all
from ferryline.model_runtime.gate.judgement import Stage, judge
from ferryline.model_runtime.gate.protocol import Request, encode_facts, encode_refusal, encode_stage
from ferryline.registry.documents import GoldenRows
from ferryline.registry.errors import RefusedError

_ANSWER, _CANDIDATE, _GOLDEN = 3, 4, 5
_FAULT = 70  # as sysexits.h's EX_SOFTWARE

# made before there is a limit on memory to run into
_OUT_OF_MEMORY = encode_refusal(out_of_memory("Python ran out of it"))


def run_child(request: Request, files: list[int], stderr: int, *, keeper: int) -> NoReturn:
    """Judge the candidate and end this process; never returns to the loop it was forked from.

    Args:
        request: what to judge, and under which limits.
        files: the pipe for the answer, the candidate, and the golden rows if there are some.
        stderr: where faults are written to.
        keeper: the process that forked this one.
    """
    status = _FAULT
    try:
        _keep_only(files, stderr)
        confine(request.limits, request.size, keeper=keeper)
        write_all(_ANSWER, _answer(request, has_golden=len(files) > _GOLDEN - _ANSWER))
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends here and is told
        _complain(error)
    finally:
        os._exit(status)


def _answer(request: Request, *, has_golden: bool) -> bytes:
    try:
        golden = GoldenRows.model_validate_json(Path(_path(_GOLDEN)).read_bytes()) if has_golden else None
        candidate = Path(_path(_CANDIDATE))
        return encode_facts(judge(candidate, request.digest, golden, request.limits, _tell))
    except RefusedError as refusal:
        return encode_refusal(refusal)
    except MemoryError:
        return _OUT_OF_MEMORY


def _tell(stage: Stage) -> None:
    write_all(_ANSWER, encode_stage(stage))


def _complain(error: BaseException) -> None:
    os.write(2, "".join(traceback.format_exception_only(error)).encode("utf-8", "replace"))


def _path(descriptor: int) -> str:
    # ONNX Runtime loads as it will when it serves: from a path
    return f"/proc/self/fd/{descriptor}"


def _keep_only(files: list[int], stderr: int) -> None:
    """Leave nothing open but what this candidate needs: neither the keeper's files nor other candidates'."""
    # out of the way first: a number that is needed may be taken by another of them
    high = [os.dup2(file, 64 + index) for index, file in enumerate([stderr, *files])]
    os.dup2(high[0], 2)
    for number, file in enumerate(high[1:], start=_ANSWER):
        os.dup2(file, number)
    os.closerange(_ANSWER + len(files), os.sysconf("SC_OPEN_MAX"))
