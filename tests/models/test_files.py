"""A file is read only where it really lies below the folder."""

from pathlib import Path

import pytest

from models.errors import ModelError
from models.files import read_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "inner" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    return tmp_path / "root"


def test_it_reads(root: Path, tmp_path: Path) -> None:
    assert read_below(root, "inner/file", 6) == b"inside"
    (tmp_path / "link").symlink_to(root)
    assert read_below(tmp_path / "link", "inner/file", 6) == b"inside"


@pytest.mark.parametrize(
    ("relative", "complaint"),
    [
        ("inner/none", "does not exist"),
        ("none/file", "does not exist"),
        ("inner", "is no regular file"),
        ("inner/file/deeper", "Not a directory"),
        ("../secret", "is not below"),
        ("inner/../../secret", "is not below"),
        ("/etc/passwd", "is not below"),
    ],
)
def test_it_refuses(root: Path, relative: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        read_below(root, relative, 100)


def test_it_follows_no_symlink(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path, target_is_directory=True)
    (root / "dangling").symlink_to(tmp_path / "none")
    for relative in ("link", "folder/secret", "dangling"):
        with pytest.raises(ModelError, match="is a symlink, which is not followed"):
            read_below(root, relative, 100)


def test_it_reads_no_more_than_it_may(root: Path) -> None:
    with pytest.raises(ModelError, match="has more than 5 bytes"):
        read_below(root, "inner/file", 5)
