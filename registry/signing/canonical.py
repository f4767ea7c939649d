"""What a signature covers: a domain tag and the canonical document without its signature.

The tag names the kind of document, so that a manifest's signature never fits a channel entry. The document
names its model, version, channel and generation itself, so that it fits no other place either.
"""

from __future__ import annotations

import orjson


def signed_bytes(kind: str, document: bytes) -> bytes | None:
    """What is signed of a document, None where `document` is not in its canonical encoding.

    It is taken from the stored bytes and not from what this program understood of them, so that fields that
    only a newer program knows are covered too. Bytes that are not canonical (a key twice, white space) could
    mean one thing here and another there, so nothing signed may be written so.

    Args:
        kind: the document's kind, such as `manifest`.
        document: its bytes as they lie in the store.
    """
    content = orjson.loads(document)
    if _canonical(content) != document:
        return None
    content.pop("signature", None)
    # the product's former name: a tag is part of every signature that exists (docs/adr/0034)
    return f"modelferry/{kind}/v1\n".encode() + _canonical(content)


def _canonical(content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
