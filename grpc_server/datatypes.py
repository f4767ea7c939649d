"""The datatypes of the protocol, beside those of the catalogue and of numpy.

Source: the tensor data types of the Open Inference Protocol v2. FP16 has no typed field: it travels raw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ferryline.registry.documents import Dtype

Array = npt.NDArray[Any]

_TEXT_BYTES = 56
"""What a text takes beside its characters."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype.

    Args:
        name: as the protocol writes it.
        dtype: as numpy holds it, little-endian as on the wire; objects for BYTES.
        field: where `InferTensorContents` carries it; None where it can only be raw.
    """

    name: str
    dtype: np.dtype[Any]
    field: str | None

    @property
    def is_bytes(self) -> bool:
        """Whether elements have no fixed size."""
        return self.dtype.hasobject


_DATATYPES: dict[Dtype, Datatype] = {
    "bool": Datatype("BOOL", np.dtype("?"), "bool_contents"),
    "uint8": Datatype("UINT8", np.dtype("u1"), "uint_contents"),
    "uint16": Datatype("UINT16", np.dtype("<u2"), "uint_contents"),
    "uint32": Datatype("UINT32", np.dtype("<u4"), "uint_contents"),
    "uint64": Datatype("UINT64", np.dtype("<u8"), "uint64_contents"),
    "int8": Datatype("INT8", np.dtype("i1"), "int_contents"),
    "int16": Datatype("INT16", np.dtype("<i2"), "int_contents"),
    "int32": Datatype("INT32", np.dtype("<i4"), "int_contents"),
    "int64": Datatype("INT64", np.dtype("<i8"), "int64_contents"),
    "float16": Datatype("FP16", np.dtype("<f2"), None),
    "float32": Datatype("FP32", np.dtype("<f4"), "fp32_contents"),
    "float64": Datatype("FP64", np.dtype("<f8"), "fp64_contents"),
    "string": Datatype("BYTES", np.dtype(object), "bytes_contents"),
}

ALL = tuple(_DATATYPES.values())

_BY_NAME = {datatype.name: datatype for datatype in ALL}
_BY_DTYPE = {datatype.dtype: datatype for datatype in ALL}


def of_catalogue(dtype: Dtype) -> Datatype:
    """The datatype of a tensor in a manifest."""
    return _DATATYPES[dtype]


def of_protocol(name: str) -> Datatype:
    """The datatype with the protocol's `name`.

    Raises:
        ValueError: there is none.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise ValueError(f"{name!r} is no datatype; use one of {', '.join(_BY_NAME)}")
    return found


def of_array(array: Array) -> Datatype:
    """The datatype that carries a numpy array; text and bytes are BYTES.

    Raises:
        ValueError: the protocol has none for it.
    """
    if array.dtype.kind in "OSU":
        return _DATATYPES["string"]
    found = _BY_DTYPE.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise ValueError(f"no datatype of the protocol carries {array.dtype} arrays")
    return found


def held_bytes(arrays: Iterable[Array]) -> int:
    """The memory that is kept by who keeps `arrays`, be they slices of something larger."""
    size = 0
    for array in arrays:
        base = array.base
        size += base.nbytes if type(base) is np.ndarray else array.nbytes
        if array.dtype.hasobject:
            size += sum(_TEXT_BYTES + len(text) for text in array.flat)
    return size
