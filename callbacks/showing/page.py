"""The page that shows trained generators: one file, with all that it needs inside."""

import base64
import gzip
import html
import json
import re
from importlib import resources
from typing import Any

from callbacks.showing.runtime import VERSION

SCRIPTS = ("base.js", "noise.js", "images.js")


def page(title: str, models: list[dict[str, Any]], networks: list[dict[str, bytes]], runtime: dict[str, bytes]) -> str:
    """The page as text.

    Args:
        title: Its title.
        models: What ``gans.export.show.shown`` says of each model, and its "title", "facts" and "paper".
        networks: Their ONNX files by name.
        runtime: See ``runtime.runtime``.
    """
    script, binary = runtime
    parts = {"runtime-script": runtime[script], "runtime": runtime[binary]}
    parts |= {f"network-{n}-{name}": content for n, of in enumerate(networks) for name, content in of.items()}
    blobs = [f'<script type="text/plain" id="{name}">{_packed(content)}</script>' for name, content in parts.items()]
    blobs.append(f'<script type="text/plain" id="worker">{_file("worker.js")}</script>')
    spec = json.dumps({"title": title, "models": models}).replace("<", "\\u003c")  # which could end the script
    scripts = "\n".join([*map(_file, SCRIPTS), "start();"])
    filled = {
        "TITLE": html.escape(title),
        "STYLE": _file("page.css"),
        "RUNTIME": VERSION,
        "SPEC": spec,
        "BLOBS": "\n".join(blobs),
        "SCRIPTS": scripts,
    }
    # In one go, as nothing is to be looked for in what was put in.
    return re.sub(rf"\b({'|'.join(filled)})\b", lambda place: filled[place[0]], _file("page.html"))


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _file(name: str) -> str:
    return resources.files("callbacks.showing").joinpath("page", name).read_text(encoding="utf-8")
