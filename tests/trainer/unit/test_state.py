import hashlib
import io
import pickle
from datetime import UTC
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferryline.registry.errors import UsageError
from ferryline.streams.pipeline import Pipeline, load_pipeline
from ferryline.trainer.errors import StateInUseError, StateUnusableError
from ferryline.trainer.progress import PastRange, Progress
from ferryline.trainer.state import MAGIC, Shape, StateFile, decode_state, encode_state

SHAPE = Shape.of(load_pipeline(Path("deploy/pipelines/phishing.toml")))
_offsets = st.dictionaries(st.integers(0, 20), st.integers(0, 2**63 - 1), max_size=4)
_progress = st.builds(
    Progress,
    records=st.integers(0, 2**62),
    skipped=st.dictionaries(st.text(max_size=8), st.integers(0, 2**40), max_size=3),
    first=_offsets,
    next=_offsets,
    newest_event_time=st.none() | st.datetimes(timezones=st.just(UTC)),
    published_records=st.integers(0, 2**62),
    last_version=st.none() | st.integers(1, 10**9),
    precision=st.sampled_from(["float32", "float64"]),
    topic_id=st.sampled_from(["", "0f" * 16]),
    past=st.lists(
        st.builds(
            PastRange,
            topic_id=st.just("0e" * 16),
            partition=st.integers(0, 9),
            first=st.integers(0, 9),
            end=st.integers(9, 99),
        ),
        max_size=2,
    ).map(tuple),
)
_arrays = st.dictionaries(
    st.from_regex(r"[a-z][a-z._]{0,9}", fullmatch=True).filter(lambda name: name != "document"),
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)),
    max_size=3,
)


@given(_progress, _arrays)
def test_what_is_saved_is_loaded(progress: Progress, arrays: dict[str, np.ndarray]) -> None:
    loaded, found = decode_state(encode_state(SHAPE, progress, arrays), expected=SHAPE, where="f")
    assert loaded == progress
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@given(st.data())
def test_no_damaged_byte_goes_unnoticed(data: st.DataObject) -> None:
    state = bytearray(encode_state(SHAPE, Progress(), {"w": np.arange(5.0)}))
    place = data.draw(st.integers(0, len(state) - 1))
    state[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateUnusableError):
        decode_state(bytes(state), expected=SHAPE, where="f")
    with pytest.raises(StateUnusableError):
        decode_state(bytes(state[:place]), expected=SHAPE, where="f")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_explode, ("boom",))


def _explode(_text: str) -> None:
    raise AssertionError("a state file ran code")


def test_a_state_with_a_pickle_in_it_is_refused_and_not_run() -> None:
    archive = io.BytesIO()
    document = np.array([_Bomb()], dtype=object)
    np.savez(archive, document=document)
    payload = archive.getvalue()
    with pytest.raises(StateUnusableError, match="another version"):
        decode_state(MAGIC + hashlib.sha256(payload).digest() + payload, expected=SHAPE, where="f")
    with pytest.raises(StateUnusableError, match="no trainer's state"):
        decode_state(pickle.dumps(_Bomb()), expected=SHAPE, where="f")


@pytest.mark.parametrize("content", [b"", b"hello", MAGIC, MAGIC + b"\0" * 40])
def test_a_foreign_or_cut_file_is_named_with_the_remedy_and_kept(
    phishing: Pipeline, tmp_path: Path, content: bytes
) -> None:
    state = StateFile(tmp_path, phishing)
    state.path.write_bytes(content)
    with pytest.raises(StateUnusableError, match="--from-scratch") as caught:
        state.load()
    assert str(state.path) in str(caught.value)
    assert state.path.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"topic": "other"}, "topic"),
        ({"features": ("a",)}, "features"),
        ({"classes": (0, 1)}, "classes"),
        ({"model": "m", "label": "truth"}, "model, label"),
    ],
)
def test_a_state_of_another_shape_is_refused_by_what_differs(changes: dict[str, object], named: str) -> None:
    state = encode_state(SHAPE, Progress(), {})
    with pytest.raises(StateUnusableError, match=f"with other {named} than"):
        decode_state(state, expected=SHAPE.model_copy(update=changes), where="f")


def test_a_file_is_replaced_whole_and_leaves_nothing_else(phishing: Pipeline, tmp_path: Path) -> None:
    state = StateFile(tmp_path / "deep" / "folder", phishing)
    assert state.load() is None
    for records in (1, 2):
        state.save(Progress(run="r", records=records), {})
    loaded = state.load()
    assert loaded is not None
    assert loaded[0].records == 2
    assert [path.name for path in state.path.parent.iterdir()] == ["phishing.state"]


def test_one_trainer_at_a_time(phishing: Pipeline, tmp_path: Path) -> None:
    first, second = StateFile(tmp_path, phishing), StateFile(tmp_path, phishing)
    first.acquire()
    with pytest.raises(StateInUseError, match="another ferry-trainer"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_folder_that_cannot_be_is_a_usage_error(phishing: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--state"):
        StateFile(tmp_path / "file" / "folder", phishing)
