"""What a run of one version costs, learnt from its runs."""

from __future__ import annotations

BUCKETS = 65

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
        # by the bits of the size: 0, 1, 2 up to 3, 4 up to 7 …; 0 for never seen
        self._means = [0.0] * BUCKETS

    def expected(self, size: int) -> float:
        """What a run of that size will cost; infinite where nothing like it was seen.

        A size never seen costs no more than a larger one, and no more than a smaller one in proportion.
        """
        return self._means[size.bit_length()] or self._guess(size.bit_length())

    def saw(self, size: int, ns: float) -> None:
        """Learn from a run."""
        bucket = size.bit_length()
        mean = self._means[bucket]
        if not mean:
            mean = max(ns, 1.0)
        elif ns > OUTLIER * mean:
            mean += WEIGHT * (OUTLIER - 1) * mean
        else:
            mean += WEIGHT * (ns - mean)
        self._means[bucket] = mean

    def _guess(self, bucket: int) -> float:
        smaller = next((at for at in range(bucket, -1, -1) if self._means[at]), None)
        larger = next((self._means[at] for at in range(bucket, BUCKETS) if self._means[at]), float("inf"))
        return larger if smaller is None else min(larger, self._means[smaller] * 2.0 ** (bucket - smaller))
