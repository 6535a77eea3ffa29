"""Pages in a real browser: Chromium, with what it may not do noted down."""

import shutil
from contextlib import contextmanager

import pytest

from callbacks.showing.runtime import runtime

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
DATA = """() => {
  const given = lab.models[0].feeds([lab.current()], lab.psi());
  return Object.keys(lab.models[0].inputs).map(name => given[name]).map(
    ({ type, data, dims }) => ({ type, data: [...data].map(Number), dims }));
}"""
PIXELS = """canvas => {
  const { width, height } = canvas;
  return [width, height, ...canvas.getContext("2d").getImageData(0, 0, width, height).data];
}"""


@pytest.fixture(scope="module")
def chromium():
    """A browser; skipped where playwright or Chromium are missing."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[test-browser]' brings playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium here, such as Debian's package chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def ort():
    """The runtime's files; skipped where they cannot be fetched."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    try:
        return runtime()
    except MisconfigurationException as error:
        pytest.skip(str(error))


@contextmanager
def opened(chromium, path, **options):
    """A page that was opened from a file and is ready; it logs no error and asks for nothing else, or this fails."""
    page = chromium.new_page(**options)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("#main:not([hidden])", timeout=60_000)
    idle(page)
    yield page
    page.close()
    assert not said
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == [path.as_uri()]


def until(page, what, seconds=30):
    """Wait until ``what()`` is true; polled from here, since the page's policy allows it no such script."""
    for _ in range(seconds * 20):
        if what():
            return
        page.wait_for_timeout(50)
    raise AssertionError(page.inner_text("#status"))


def idle(page):
    until(page, lambda: page.evaluate("document.getElementById('status').className") == "idle")


def slide(page, label, value):
    """Move a slider, as the keyboard or the mouse would."""
    slider = page.locator("label.slider", has_text=label).locator("input").first
    slider.evaluate("(element, value) => { element.value = value; element.dispatchEvent(new Event('input')); }", value)


def pixels(page, canvas):
    """The pixels of a canvas, a JavaScript expression, as (H, W, 4)."""
    import numpy as np

    width, height, *values = page.evaluate(f"({PIXELS})({canvas})")
    return np.array(values, dtype=np.int64).reshape(height, width, 4)
