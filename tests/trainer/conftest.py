from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from sklearn.datasets import load_digits

from ferryline.streams.pipeline import Pipeline, load_pipeline
from ferryline.trainer.batches import FetchedBatch

BatchMaker = Callable[..., FetchedBatch]


@pytest.fixture(scope="session")
def digits() -> Pipeline:
    return load_pipeline(Path("deploy/pipelines/digits.toml"))


@pytest.fixture(scope="session")
def phishing() -> Pipeline:
    return load_pipeline(Path("deploy/pipelines/phishing.toml"))


@pytest.fixture(scope="session")
def digit_values() -> list[bytes]:
    images, truths = load_digits(return_X_y=True)
    return [
        orjson.dumps({"ts": "2026-01-01 00:00:00.000", "x": image, "actual_y": truth})
        for image, truth in zip(images.astype(int).tolist(), truths.tolist(), strict=True)
    ]


@pytest.fixture(scope="session")
def make_batch() -> BatchMaker:
    def make(values: list[bytes | None], *, first: int = 0, partition: int = 0) -> FetchedBatch:
        count = len(values)
        return FetchedBatch(
            values=values,
            partitions=[partition] * count,
            offsets=list(range(first, first + count)),
            timestamps=[1_767_225_600_000 + index for index in range(first, first + count)],
            next_offsets={partition: first + count},
        )

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
