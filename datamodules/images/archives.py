"""Archives that are downloaded, compared with a published checksum and unpacked."""

import hashlib
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from lightning.pytorch.utilities.exceptions import MisconfigurationException


def fetch(url: str, sha256: str, folder: Path) -> None:
    """Download a zip or tar archive and unpack it as a folder.

    What lies under the archive's only top folder, or all of it where there are several, becomes ``folder``, which may
    be there if it is empty: all at once, so that there is never half a data set. Nothing is written anywhere but there
    and, meanwhile, into a hidden folder beside it.

    Raises:
        MisconfigurationException: The folder holds something, the archive cannot be downloaded, is not the one that was
            published or has members that do not belong into a folder, or there is no room for it.
    """
    from torchvision.datasets.utils import download_url

    if _holds_something(folder):
        raise MisconfigurationException(
            f"{folder} holds other things than the data set, so that {url} was not unpacked there: give a new folder"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            archive, unpacked = Path(name) / "archive", Path(name) / "unpacked"
            download_url(url, name, archive.name)
            with archive.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                raise ValueError(f"its SHA-256 is {found}, not {sha256}")
            unpacked.mkdir()
            unpack(archive, unpacked)
            top = list(unpacked.iterdir())
            if len(top) == 1 and top[0].is_dir():
                unpacked = top[0]
            try:
                unpacked.replace(folder)
            except OSError:
                if not _holds_something(folder):  # or another node that shares the folder was faster
                    raise
    except Exception as error:  # no network, no room, no permission, or whatever a damaged archive leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MisconfigurationException(
            f"{url} was not fetched ({reason}): download it by hand and unpack it, so that its contents lie in {folder}"
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a folder, if all of its members are plain files and folders inside it.

    Raises:
        ValueError: A member would leave the folder, or is a link or a device; nothing is unpacked then.
        tarfile.ReadError: The file is no archive.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was not packed on Unix
                _check(info.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            zipped.extractall(folder)
    else:
        with tarfile.open(archive) as tarred:
            for member in tarred:
                _check(member.name, plain=member.isfile() or member.isdir())
            tarred.extractall(folder, filter="data")  # which also takes odd permissions and owners away


def _check(name: str, plain: bool) -> None:
    windows = PureWindowsPath(name)  # splits at both slashes
    if ".." in windows.parts or windows.root or windows.drive or PurePosixPath(name).is_absolute():
        raise ValueError(f"its member {name!r} would be written outside of the folder")
    if not plain:
        raise ValueError(f"its member {name!r} is neither a file nor a folder")


def _holds_something(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
