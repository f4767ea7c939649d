"""What can go wrong with the local stack, as branches of the registry's tree.

FerryError
└── UnreachableError
    └── StackError
        ├── StackUsageError             (a UsageError too) the caller can put it right
        │   ├── PortTakenError
        │   ├── MissingToolError
        │   └── StackBusyError
        ├── InstallError                a download or a build failed
        ├── PartFailedError             a server died or missed its deadline while starting
        └── PartUnreachableError        a server that runs elsewhere does not answer
"""

from pathlib import Path

from ferryline.registry.errors import UnreachableError, UsageError


class StackError(UnreachableError):
    """The stack cannot do what it was asked; the text says what happened and what to do."""


class StackUsageError(UsageError, StackError):
    """Wrong usage or configuration: nothing was started."""


class PortTakenError(StackUsageError):
    """A port that was asked for by name is in use."""

    def __init__(self, title: str, port: int, *, flag: str, variable: str | None) -> None:
        elsewhere = f", or set {variable} to use what runs there" if variable else ""
        super().__init__(f"port {port} for {title} is taken: free it, give another {flag}{elsewhere}")


class MissingToolError(StackUsageError):
    """A tool the stack needs is not installed."""


class StackBusyError(StackUsageError):
    """Another `ferry-stack` is changing the same stack."""

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"another ferry-stack (process {holder or 'unknown'}) is working on this stack: wait for it, "
            "or give FERRY_STACK_HOME another folder for a second stack"
        )


class InstallError(StackError):
    """A part could not be downloaded or built; what was fetched so far is thrown away."""


class PartFailedError(StackError):
    """A server did not become ready.

    Args:
        name: the process, such as `kafka`.
        reason: what was seen.
        log: where the server's own words are.
        tail: the last lines of that file.
    """

    def __init__(self, name: str, reason: str, *, log: Path, tail: str) -> None:
        super().__init__(f"{name} {reason}; its log is {log}")
        self.name = name
        self.log = log
        self.tail = tail


class PartUnreachableError(StackError):
    """An address given in the environment does not answer."""

    def __init__(self, title: str, variable: str, address: str) -> None:
        super().__init__(
            f"{title} at {address} does not answer: start it there, "
            f"or unset {variable} and `ferry-stack up` starts one here"
        )
