"""ONNX Runtime Web, with which a page runs networks: fetched once, verified, and kept."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
FILES = {  # those of the package that a page needs, with their SHA-256
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
URL = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist"
CACHE = Path("~/.cache/gan-lab")


def runtime(given: str | None = None) -> dict[str, bytes]:
    """The runtime's files by name.

    They are looked for in ``given``, a folder that holds them; else in the cache, which npm or a download fills.

    Raises:
        MisconfigurationException: They are not there or are others, and cannot be fetched.
    """
    if given is not None:
        return _read(Path(given).expanduser(), f"--runtime={given}")
    folder = CACHE.expanduser() / f"{PACKAGE}-{VERSION}"
    if not all((folder / name).is_file() and _is_right(name, (folder / name).read_bytes()) for name in FILES):
        found = _by_npm() or _by_download()
        if found is None:
            raise MisconfigurationException(
                f"{PACKAGE} {VERSION}, with which the page runs the network, could not be fetched, neither by npm nor "
                f"from {URL}: where there is a network, npm pack {PACKAGE}@{VERSION} fetches it; unpack it and give "
                "--runtime=FOLDER, the one that holds ort.wasm.bundle.min.mjs"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in found.items():
            partial = folder / f".{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)
    return _read(folder, str(folder))


def _is_right(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == FILES[name]


def _read(folder: Path, said: str) -> dict[str, bytes]:
    found = {}
    for name in FILES:
        if not (folder / name).is_file():
            raise MisconfigurationException(f"{said} holds no {name}: give the folder dist of {PACKAGE} {VERSION}")
        found[name] = (folder / name).read_bytes()
        if not _is_right(name, found[name]):
            raise MisconfigurationException(f"{name} in {said} is not that of {PACKAGE} {VERSION}: fetch it again")
    return found


def _checked(found: dict[str, bytes]) -> dict[str, bytes] | None:
    return found if found.keys() == FILES.keys() and all(_is_right(*item) for item in found.items()) else None


def _by_npm() -> dict[str, bytes] | None:
    """Out of the package as npm packs it; nothing of it is unpacked to disk or run."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", f"--pack-destination={folder}"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=600)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
                return _checked({name: member.read() for name, member in members.items() if member is not None})
        except (OSError, subprocess.SubprocessError, tarfile.TarError, KeyError, StopIteration):
            return None


def _by_download() -> dict[str, bytes] | None:
    found = {}
    try:
        for name in FILES:
            with urllib.request.urlopen(f"{URL}/{name}", timeout=30) as response:
                found[name] = response.read()
    except (OSError, ValueError):
        return None
    return _checked(found)
