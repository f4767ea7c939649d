"""Arrays made to fit a model, by a client, before anything is sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.client import InputError, ModelInfo, TensorInfo
from ferryline.grpc_server.client.contract import as_arrays, fit, fitted

FP32 = TensorInfo("x", "FP32", (-1, 2))
NUMERIC = [datatype for datatype in datatypes.ALL if not datatype.is_bytes]


def info(*tensors: TensorInfo) -> ModelInfo:
    return ModelInfo("m", ("1",), "p", {tensor.name: tensor for tensor in tensors}, {})


@pytest.mark.parametrize(
    "value", [[[1, 2]], [[1.0, 2.0]], [[True, False]], np.ones((3, 2)), np.ones((3, 2), np.float16)]
)
def test_numbers_become_the_dtype_that_the_model_takes(value: object) -> None:
    array = fit(FP32, value)  # type: ignore[arg-type]  # what people give
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.asarray(value, np.float32))


def test_booleans_become_numbers_of_any_width() -> None:
    for datatype in ("UINT64", "INT8", "FP16"):
        assert fit(TensorInfo("x", datatype, (2,)), [True, False]).tolist() == [1, 0]


def test_an_array_that_fits_is_not_copied() -> None:
    array = np.ones((3, 2), np.float32)
    assert fit(FP32, array) is array


@pytest.mark.parametrize(
    ("datatype", "value", "words"),
    [
        ("INT64", [1.5], "takes INT64, and the array is float64"),
        ("INT8", [128], "beyond INT8, which goes from -128 to 127"),
        ("UINT16", [-1], "beyond UINT16"),
        ("FP32", [1e39], "too large for FP32"),
        ("FP16", [70000], "too large for FP16"),
        ("FP32", ["1"], "takes FP32, and the array is <U1"),
        ("FP32", [1j], "takes FP32, and the array is complex128"),
        ("BOOL", [1], "takes BOOL, and the array is int64"),
        ("INT64", [2**70], "takes INT64, and the array is object"),
        ("BYTES", [1], "takes text, and 1 is none"),
        ("BYTES", ["a", None], "takes text, and None is none"),
        ("BF16", [1.0], "is BF16, which numpy does not have"),
    ],
)
def test_nothing_is_lost_silently(datatype: str, value: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        fit(TensorInfo("x", datatype, (-1,)), value)  # type: ignore[arg-type]  # likewise
    assert words in str(caught.value)
    assert "'x'" in str(caught.value)


@given(st.sampled_from(NUMERIC), st.sampled_from(NUMERIC), st.data())
def test_what_is_converted_can_be_converted_back(
    given_type: datatypes.Datatype, wanted: datatypes.Datatype, data: st.DataObject
) -> None:
    array = data.draw(npst.arrays(given_type.dtype, 3))
    try:
        converted = fit(TensorInfo("x", wanted.name, (3,)), array)
    except InputError:
        return
    assert converted.dtype == wanted.dtype
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(converted, array)
    else:
        assert np.array_equal(np.isfinite(converted), np.isfinite(array.astype(np.float64)))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2,), "takes [-1, 2], and the array is [2]; a single row goes as array[np.newaxis]"),
        ((1, 3), "takes [-1, 2], and the array is [1, 3] (-1 takes any size)"),
        ((1, 1, 2), "takes [-1, 2], and the array is [1, 1, 2] (-1 takes any size)"),
    ],
)
def test_a_wrong_shape_is_told_with_the_right_one(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        fit(FP32, np.zeros(shape))
    assert words in str(caught.value)


def test_a_model_that_states_no_shape_takes_any() -> None:
    assert fit(TensorInfo("x", "FP32", ()), [[[1]]]).shape == (1, 1, 1)


def test_ragged_rows_are_no_array() -> None:
    with pytest.raises(InputError, match="input 'x' is no array"):
        fit(FP32, [[1, 2], [3]])


def test_inputs_go_by_name_and_a_single_one_alone() -> None:
    one = info(FP32)
    for inputs in ([[1, 2]], {"x": [[1, 2]]}):
        assert list(fitted(one, inputs)) == ["x"]
    two = info(FP32, TensorInfo("y", "INT64", (1,)))
    assert list(fitted(two, {"y": [1], "x": [[1, 2]]})) == ["x", "y"]
    with pytest.raises(InputError, match=r"has 2 inputs, so give them by name: 'x' \(FP32 \[-1, 2\]\), 'y'"):
        fitted(two, [[1, 2]])
    with pytest.raises(InputError, match=r"input 'y' is missing; model 'm' takes 'x'"):
        fitted(two, {"x": [[1, 2]]})
    with pytest.raises(InputError, match=r"no input 'X'; model 'm' takes 'x' \(FP32"):
        fitted(one, {"X": [[1, 2]]})


def test_without_a_check_inputs_stay_as_they_are() -> None:
    assert as_arrays({"x": np.ones(2, np.int8)})["x"].dtype == np.int8
    with pytest.raises(InputError, match="go by name"):
        as_arrays([1])
