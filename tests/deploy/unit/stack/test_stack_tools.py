import pytest

from ferryline.deploy.stack.tools import go_release, java_feature_release


@pytest.mark.parametrize(
    ("text", "release"),
    [('openjdk version "21.0.8" 2025', 21), ('java version "1.8.0_302"', 1), ("no such thing", None)],
)
def test_reading_javas_version(text: str, release: object) -> None:
    assert java_feature_release(text) == release


@pytest.mark.parametrize(
    ("text", "release"), [("go version go1.26.8 linux/amd64", (1, 26)), ("go version devel", None)]
)
def test_reading_gos_version(text: str, release: object) -> None:
    assert go_release(text) == release
