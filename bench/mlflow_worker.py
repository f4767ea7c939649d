"""Does with MLflow what it is told on standard input, and says on standard output how long it took.

Runs in an environment of its own (see `bench.mlflow_peer`), where nothing of this project is installed. Each
line in is a JSON list: a verb and its arguments; each line out is a JSON number, the seconds spent in MLflow.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable

from mlflow import MlflowClient  # type: ignore[import-not-found]  # of another environment

MODEL = "digits"
ALIAS = "production"
NEWEST = 20


class Worker:
    """One registry in a SQLite file, by MLflow's own client."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._client.create_registered_model(MODEL)
        self._numbers = itertools.count(1)
        self._aliased = itertools.cycle([1, 2])

    def fill(self, versions: int) -> None:
        """Register so many versions and point the alias at the last one."""
        for _ in range(versions):
            self.register()
        self._client.set_registered_model_alias(MODEL, ALIAS, str(versions))

    def register(self) -> None:
        """Another version; MLflow keeps where its file lies, and does not copy the file."""
        number = next(self._numbers)
        self._client.create_model_version(MODEL, source=f"file:///models/{number}/model.onnx")

    def set_alias(self) -> None:
        """Point the alias at another version than before."""
        self._client.set_registered_model_alias(MODEL, ALIAS, str(next(self._aliased)))

    def resolve(self) -> None:
        """What the alias points at."""
        self._client.get_model_version_by_alias(MODEL, ALIAS)

    def list_newest(self) -> None:
        """The newest few versions."""
        self._client.search_model_versions(
            f"name='{MODEL}'", max_results=NEWEST, order_by=["version_number DESC"]
        )

    def list_all(self) -> None:
        """Every version."""
        found, token = 0, None
        while True:
            page = self._client.search_model_versions(f"name='{MODEL}'", max_results=10_000, page_token=token)
            found, token = found + len(page), page.token
            if not token:
                break
        assert found


def main() -> None:
    """Serve until standard input ends."""
    worker = Worker(sys.argv[1])
    print(json.dumps(0), flush=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        act: Callable[..., None] = getattr(worker, verb)
        begun = time.perf_counter()
        act(*arguments)
        print(json.dumps(time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
