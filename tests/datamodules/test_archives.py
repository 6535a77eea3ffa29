"""Archives that are downloaded and unpacked; nothing here touches the network."""

import hashlib
import io
import stat
import tarfile
import zipfile
from urllib.error import URLError

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.archives import fetch, unpack

FILES = {"set/train/a.txt": b"a", "set/val/b.txt": b"bb"}
URL = "http://example.org/set"


def packed(files, kind, types=None):
    """An archive as bytes; types are those of members that are no plain files."""
    buffer, types = io.BytesIO(), types or {}
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content in files.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (types.get(name, stat.S_IFREG) | 0o644) << 16
                file.writestr(info, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.type, info.size = types.get(name, tarfile.REGTYPE), len(content)
                if info.issym() or info.islnk():
                    info.linkname, info.size = content.decode(), 0
                file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """Lets every address give these bytes, or raise this."""

    def set_answer(content):
        class Answer(io.BytesIO):
            url, length = URL, len(content) if isinstance(content, bytes) else None

        def answer(*_, **__):
            if isinstance(content, Exception):
                raise content
            return Answer(content)

        monkeypatch.setattr("urllib.request.urlopen", answer)

    return set_answer


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
def test_an_archives_top_folder_becomes_the_folder(kind, there, tmp_path, serve):
    content = packed(FILES, kind)
    serve(content)
    if there:
        (tmp_path / "mine").mkdir()
    fetch(URL, hashlib.sha256(content).hexdigest(), tmp_path / "mine")
    assert tree(tmp_path) == {"mine/train/a.txt": b"a", "mine/val/b.txt": b"bb"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]  # nothing hidden is left either


def test_several_top_folders_are_kept(tmp_path, serve):
    content = packed({"trainA/1": b"", "trainB/1": b""}, "zip")
    serve(content)
    fetch(URL, hashlib.sha256(content).hexdigest(), tmp_path / "new/mine")
    assert set(tree(tmp_path / "new/mine")) == {"trainA/1", "trainB/1"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (URLError("no network"), "no network"),
        (packed(FILES, "zip")[:-9], "SHA-256"),
        (b"<html>moved</html>", "SHA-256"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(answer, reason, tmp_path, serve):
    serve(answer)
    with pytest.raises(MisconfigurationException) as error:
        fetch(URL, hashlib.sha256(packed(FILES, "zip")).hexdigest(), tmp_path / "mine")
    for part in (URL, reason, str(tmp_path / "mine")):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("urllib.request.urlopen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(URL, "", tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept(tmp_path, serve):
    serve(b"")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MisconfigurationException, match=r"holds other things .* give a new folder$"):
        fetch(URL, "", tmp_path)
    assert tree(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../out.txt", "set/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt"])
def test_members_that_would_leave_the_folder_are_refused(kind, name, tmp_path, serve):
    content = packed({"good.txt": b"", name: b"bad"}, kind)
    serve(content)
    with pytest.raises(MisconfigurationException, match="outside of the folder"):
        fetch(URL, hashlib.sha256(content).hexdigest(), tmp_path / "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        ("zip", stat.S_IFLNK),
        ("zip", stat.S_IFCHR),
        ("tar", tarfile.SYMTYPE),
        ("tar", tarfile.LNKTYPE),
        ("tar", tarfile.FIFOTYPE),
        ("tar", tarfile.CHRTYPE),
    ],
)
def test_links_and_devices_are_refused(kind, type, tmp_path):
    (tmp_path / "archive").write_bytes(packed({"good.txt": b"", "odd": b"good.txt"}, kind, {"odd": type}))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="'odd' is neither a file nor a folder"):
        unpack(tmp_path / "archive", tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())
