"""The data sets that can be replayed, as records of the example pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ferryline.registry.extras import Extra, require_extra

Document = dict[str, Any]


class DatasetName(StrEnum):
    """What can be replayed."""

    DIGITS = "digits"
    PHISHING = "phishing"


_PACKAGES = {DatasetName.DIGITS: "sklearn", DatasetName.PHISHING: "river"}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples for one topic.

    Attributes:
        name: what it is called on the command line.
        topic: where it goes unless told otherwise.
        samples: the records in their original order, without a time.
        time_field: the field that gets the moment of sending; None for none.
    """

    name: DatasetName
    topic: str
    samples: list[Document]
    time_field: str | None

    def record(self, index: int, now: datetime) -> Document:
        """Sample `index` as it is sent at `now`."""
        sample = self.samples[index]
        if self.time_field is None:
            return sample
        return {self.time_field: now.astimezone(UTC).isoformat(timespec="milliseconds"), **sample}


def load_dataset(name: DatasetName) -> Dataset:
    """Read a data set from the package that ships it.

    Raises:
        MissingExtraError: that is not installed.
    """
    require_extra(Extra.STACK, f"the data set {name}", [_PACKAGES[name]])
    loaders: dict[DatasetName, Callable[[], Dataset]] = {
        DatasetName.DIGITS: _digits,
        DatasetName.PHISHING: _phishing,
    }
    return loaders[name]()


def _digits() -> Dataset:
    """1,797 handwritten digits of 8x8 pixels (E. Alpaydin, C. Kaynak, 1998; in scikit-learn)."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    samples = [
        {"x": image, "actual_y": digit}
        for image, digit in zip(images.astype(int).tolist(), digits.tolist(), strict=True)
    ]
    return Dataset(DatasetName.DIGITS, "handwritten_digit", samples, time_field="ts")


def _phishing() -> Dataset:
    """1,250 web pages (N. Abdelhamid, 2016; in River)."""
    from river.datasets import Phishing

    samples = [{"x": dict(features), "y": bool(truth)} for features, truth in Phishing()]
    return Dataset(DatasetName.PHISHING, "ml_training_data", samples, time_field=None)
