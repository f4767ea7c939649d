"""Which records and requests a canary gets: a stable hash of the key decides, the same in every consumer."""

from __future__ import annotations

from hashlib import blake2b

_HASH_BYTES = 8
_SPAN = 1 << (8 * _HASH_BYTES)


class CanarySplit:
    """The share of keys that a canary version gets.

    A key that the canary gets at some percentage it keeps at every higher one, so raising the percentage
    moves no key back; another canary version gets other keys. BLAKE2b (RFC 7693) spreads the keys evenly.

    Args:
        channel: the channel, as `model:channel`.
        version: the canary's version.
        percent: the share it gets, above 0 and below 100.
    """

    def __init__(self, channel: str, version: int, percent: float) -> None:
        self._seeded = blake2b(f"{channel}@{version}/".encode(), digest_size=_HASH_BYTES)
        self._bound = int(_SPAN * (percent / 100))

    def takes(self, key: bytes) -> bool:
        """Whether the canary gets the record or request with `key`."""
        hasher = self._seeded.copy()
        hasher.update(key)
        return int.from_bytes(hasher.digest(), "big") < self._bound
