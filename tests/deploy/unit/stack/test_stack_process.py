from pathlib import Path

from ferryline.deploy.stack import process


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("1\n2\n3\n")
    assert process.tail(tmp_path / "x.log", 2) == "2\n3"
    assert process.tail(tmp_path / "missing.log", 2) == ""
