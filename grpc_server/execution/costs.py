"""What a run of one version costs, learnt from its runs."""

from __future__ import annotations

BUCKETS = 64

# a run can look slower than it is, when the machine had other things to do; one such must not decide
WEIGHT = 0.25
OUTLIER = 8.0


class RunCosts:
    """Nanoseconds of a run by its size: moving averages, one for each power of two.

    A size is the number of rows, or of elements where rows differ in length. Every average is one number that
    is replaced as a whole, so that several threads may say what they saw.
    """

    __slots__ = ("_means",)

    def __init__(self) -> None:
        self._means = [0.0] * BUCKETS  # 0 for never seen

    def expected(self, size: int) -> float:
        """What a run of that size will cost; infinite where nothing like it was seen.

        A size never seen costs no more than a larger one, and no more than a smaller one in proportion.
        """
        return self._means[_bucket(size)] or self._guess(_bucket(size))

    def saw(self, size: int, ns: float) -> None:
        """Learn from a run."""
        bucket = _bucket(size)
        mean = self._means[bucket]
        self._means[bucket] = mean + WEIGHT * (min(ns, OUTLIER * mean) - mean) if mean else max(ns, 1.0)

    def _guess(self, bucket: int) -> float:
        smaller = next((at for at in range(bucket, -1, -1) if self._means[at]), None)
        larger = next((self._means[at] for at in range(bucket, BUCKETS) if self._means[at]), float("inf"))
        return larger if smaller is None else min(larger, self._means[smaller] * 2.0 ** (bucket - smaller))


def _bucket(size: int) -> int:
    # 0 for nothing, 1 for 1, 2 up to 3, 3 up to 7 …
    return min(size.bit_length(), BUCKETS - 1)
