"""What we ask of the Kafka client that is installed with us."""

from __future__ import annotations

from kafka import codec
from kafka.record import util


def test_checksums_are_counted_by_native_code() -> None:
    # in Python, 5 MB take most of a second, and a large record holds up all that follow
    assert util.crc32c_c is not None


def test_every_compression_can_be_read() -> None:
    known = {
        "gzip": codec.has_gzip(),
        "lz4": codec.has_lz4(),
        "snappy": codec.has_snappy(),
        "zstd": codec.has_zstd(),
    }
    assert all(known.values()), known
