"""One ONNX model ready to run on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ferryline.model_runtime.memory import session_bytes
from ferryline.registry.error_kinds import is_exhaustion
from ferryline.registry.errors import FerryError, RefusedError

Array = npt.NDArray[Any]

# the package switches it off for good before the import; where another import came first, this must do
onnxruntime.disable_telemetry_events()

# ONNX Runtime's own warnings go to standard error; a model's faults reach the caller as errors
_LOG_ERRORS_ONLY = 3
_LOG_FATAL_ONLY = 4


class ExhaustedError(FerryError):
    """This machine ran out of memory, files, disk or threads; that says nothing about the model."""


class RunStop:
    """Ends a run from another thread, between two operators of the graph.

    Args:
        callers: how many wait for the run; it ends when all of them have left.
    """

    def __init__(self, callers: int = 1) -> None:
        self._callers = callers
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = _LOG_FATAL_ONLY  # ending a run is no error to write about

    @property
    def ended(self) -> bool:
        """Whether the last caller has left."""
        return bool(self.options.terminate)

    def leave(self) -> None:
        """One caller waits no more."""
        self._callers -= 1
        if self._callers <= 0:
            self.options.terminate = True


class OnnxSession:
    """A loaded model; safe to run from many threads at once.

    One intra-op thread and no spinning: a server scales by requests, not inside one, and a spinning thread
    takes the core from its neighbours.

    Args:
        path: the verified file. A path costs the event loop less than bytes do while the session is made.

    Attributes:
        memory: bytes that it takes, as estimated from the file.

    Raises:
        RefusedError: ONNX Runtime cannot load it (gate `load`).
        ExhaustedError: it could not for want of memory or files; the next try may succeed.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _LOG_ERRORS_ONLY
        # else bytes or a file name may choose ONNX Runtime's own format, which no check here has read
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self.memory = session_bytes(path)
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            if isinstance(error, OSError | MemoryError) or is_exhaustion(str(error)):
                raise ExhaustedError(f"it could not be loaded for now: {error!r}") from error
            raise RefusedError(
                "load",
                f"ONNX Runtime cannot load it: {error}",
                "Export it for an opset that this runtime knows",
            ) from error
        # InferenceSession.run checks anew what a contract has checked, which costs a small model a fifth of
        # its run; the library's own object below it does the same work and refuses the same inputs
        self._run = getattr(self._session, "_sess", self._session).run
        self.input_names: tuple[str, ...] = tuple(item.name for item in self._session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(item.name for item in self._session.get_outputs())

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, stop: RunStop | None = None
    ) -> dict[str, Array]:
        """Run the model once.

        Args:
            feeds: an array for each input, by name, with the batch first and the dtype of the contract.
            outputs: the names wanted; None for all.
            stop: ends the run early; None for a run that nobody ends.

        Returns:
            An array for each output, by name.

        Raises:
            ValueError: ONNX Runtime could not run the model on these inputs, or the run was ended.
        """
        names = self.output_names if outputs is None else tuple(outputs)
        try:
            results = self._run(names, feeds, None if stop is None else stop.options)
        except Exception as error:  # see __init__
            raise ValueError(f"the model could not be run on these inputs: {error}") from error
        return dict(zip(names, map(np.asarray, results), strict=True))


def require_resources(error: ValueError) -> None:
    """Return where a run failed for what it was given.

    Args:
        error: as `OnnxSession.run` raised it.

    Raises:
        ExhaustedError: the machine let it fail; the next try may succeed.
    """
    cause = error.__cause__  # Python's own MemoryError says nothing, and NumPy's nothing that is known
    if isinstance(cause, OSError | MemoryError):
        raise ExhaustedError(f"it could not be run for now: {cause!r}") from error
    if is_exhaustion(str(error)):
        raise ExhaustedError(str(error)) from error
