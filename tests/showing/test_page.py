"""The page, opened from a file in Chromium: what it shows is what PyTorch makes."""

import base64
import json

import numpy as np
import pytest
import torch
from browser import DATA, chromium, idle, opened, ort, pixels, slide, until  # noqa: F401
from conftest import CLASSES, lively, smallest
from PIL import Image

import gans
from callbacks.pictures.images import to_uint8
from callbacks.showing.facts import png_of
from callbacks.showing.page import page
from gans.export.show import shown

PLAIN = {
    "facts": ["step 3"],
    "data": "",
    "background": "white",
    "colours": {},
    "labels_are": "",
    "directions_of_data": ["A to B", "B to A"],
    "neighbors": None,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, ort):  # noqa: F811
    """A function that writes the page of some models."""
    folder = tmp_path_factory.mktemp("pages")

    def write(*models, **more):
        parts = [shown(model) for model in models]
        values = [v | PLAIN | {"title": f"{v['gan']} {n}"} | more for n, (v, _) in enumerate(parts)]
        path = folder / f"{len(list(folder.iterdir()))}.html"
        path.write_text(page("A <title> & SCRIPTS", values, [files for _, files in parts], ort), encoding="utf-8")
        return path

    return write


def given(found):
    """What the page feeds a network, as tensors in the order of its inputs."""
    kinds = {"float32": torch.float32, "int64": torch.int64}
    return [torch.tensor(v["data"], dtype=kinds[v["type"]]).reshape(v["dims"]) for v in found]


def rgb(image):
    """A float image (C, H, W) as pixels (H, W, 3)."""
    return to_uint8(image).expand(3, -1, -1).permute(1, 2, 0).numpy().astype(np.int64)


def assert_drawn(place, canvas, image):
    """The canvas comes to show a PyTorch image, but for one of 255 grey levels."""
    until(place, lambda: np.abs(pixels(place, canvas)[..., :3] - rgb(image)).max() <= 1, 10)


def test_codes_directions_and_walks_draw_what_pytorch_draws(chromium, written):  # noqa: F811
    model = lively(smallest(gans.InfoGAN, categories=4))
    call = model.portable()["generator"].call
    with opened(chromium, written(model)) as place:
        assert place.inner_text("h1") == "A <title> & SCRIPTS"
        assert place.locator(".grid button").count() == 24
        assert "https://arxiv.org/abs/1606.03657" in place.get_attribute("header a", "href")
        before = place.evaluate(DATA)
        first = call(*given(before))[0]
        assert_drawn(place, "lab.large[0]", first)
        assert_drawn(place, "lab.cells[0][0].canvas", first)
        slide(place, "direction 2", 3)
        after = place.evaluate(DATA)
        moved = np.array(after[-1]["data"]) - np.array(before[-1]["data"])
        np.testing.assert_allclose(moved, 3 * np.array(shown(model)[0]["directions"][1]), atol=1e-5)
        assert_drawn(place, "lab.large[0]", call(*given(after))[0])
        assert np.abs(rgb(call(*given(after))[0]) - rgb(first)).max() > 3  # and so it changed
        slide(place, "code 1", -1.5)
        place.get_by_role("button", name="3", exact=True).last.click()
        changed = place.evaluate(DATA)
        assert changed[0]["data"] == [3]
        assert changed[1]["data"][0] == -1.5
        assert_drawn(place, "lab.large[0]", call(*given(changed))[0])
        slide(place, "truncation", 0.5)
        assert_drawn(place, "lab.large[0]", call(*given(place.evaluate(DATA)))[0])
        slide(place, "truncation", 1)
        # A walk between two that are kept
        assert place.locator("label.slider", has_text="from A to B").is_hidden()
        for number in (1, 5):
            place.locator(".grid button").nth(number).focus()
            place.keyboard.press("Enter")
        place.keyboard.press("Enter")  # once is enough
        assert place.evaluate("lab.kept().length") == 2
        slide(place, "from A to B", 1)
        to = place.evaluate(DATA)
        assert_drawn(place, "lab.walk[0]", call(*given(to))[0])
        place.get_by_role("button", name="Play").click()
        place.wait_for_timeout(300)
        place.get_by_role("button", name="Pause").click()
        assert place.evaluate("+document.querySelector('main section:last-child input').value") < 1
        place.get_by_role("button", name="kept sample 1").filter(has_text="×").click()
        assert place.evaluate("lab.kept().length") == 1
        with place.expect_download() as saved:
            place.get_by_role("button", name="Save as PNG").nth(1).click()
        assert Image.open(saved.value.path()).size == (16, 16)
        place.get_by_role("button", name="2", exact=True).first.click()
        assert place.evaluate("lab.grid().every(point => point.category === 2)")


def test_styles_are_moved_truncated_and_mixed(chromium, written):  # noqa: F811
    model = lively(smallest(gans.StyleDCGAN, latent_dim=8))
    functions, generator = model.portable(), model.generator
    steps = torch.tensor(shown(model)[0]["directions"])
    with opened(chromium, written(model)) as place, torch.no_grad():
        slide(place, "truncation", 0.6)
        slide(place, "direction 1", -2)
        noise, psi = given(place.evaluate(DATA))
        assert psi.item() == pytest.approx(0.6)
        styles = functions["mapping"].call(noise, psi) - 2 * steps[0]
        assert_drawn(place, "lab.large[0]", functions["synthesis"].call(styles)[0])
        slide(place, "truncation", 1)
        ends = []
        for number in (2, 7):
            place.locator(".grid button").nth(number).click()
            ends.append(generator.mapping(given(place.evaluate(DATA))[0]))
        slide(place, "layers of A", 1)
        mixed = functions["synthesis"].call(generator.mix(*ends, 1))[0]
        assert_drawn(place, "lab.mixed[0]", mixed)
        slide(place, "from A to B", 0)
        assert_drawn(place, "lab.walk[0]", functions["synthesis"].call(generator.for_every_layer(ends[0]))[0])


def test_a_walk_is_spherical(chromium, written):  # noqa: F811
    from gans.training.noise import slerp

    model = lively(smallest(gans.CGAN, num_classes=CLASSES, domains=("cat", "dog", "fox")))
    with opened(chromium, written(model)) as place:
        place.get_by_role("button", name="class dog").or_(place.get_by_role("button", name="dog")).first.click()
        idle(place)
        a, b = (place.evaluate(f"[...lab.models[0].noise(lab.grid()[{n}])]") for n in (0, 1))
        between = place.evaluate("[...lab.models[0].noise({ from: lab.grid()[0], to: lab.grid()[1], t: 0.3 })]")
        expected = slerp(torch.tensor(a).double(), torch.tensor(b).double(), torch.tensor(0.3))
        np.testing.assert_allclose(between, expected, atol=1e-5)
        assert given(place.evaluate(DATA))[1].tolist() == [1]
        draws = np.array([place.evaluate(f"[...lab.models[0].noise({{ seed: {s} }})]") for s in range(400)])
        assert abs(draws.mean()) < 0.06
        assert abs(draws.std() - 1) < 0.05  # standard normal, as trained with


def test_models_side_by_side_get_the_same_noise(chromium, written):  # noqa: F811
    first, second = (lively(smallest(gans.GAN, hidden=8 * n)) for n in (1, 2))
    with opened(chromium, written(first, second), viewport={"width": 390, "height": 800}) as place:
        feeds = given(place.evaluate(DATA))
        for number, model in enumerate((first, second)):
            assert_drawn(place, f"lab.large[{number}]", model.portable()["generator"].call(*feeds)[0])
        assert place.evaluate("document.documentElement.scrollWidth") <= 390  # a phone's page does not scroll sideways
        assert place.locator("h3").all_inner_texts()[:2] == ["GAN 0", "GAN 1"]


def photograph(path, width, height):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1


def test_a_picture_that_is_dropped_is_translated_as_pytorch_does(chromium, written, tmp_path):  # noqa: F811
    model = lively(smallest(gans.CycleGAN, image_shape=(3, 32, 32)))
    images = photograph(tmp_path / "my photo.png", 61, 45)
    with opened(chromium, written(model)) as place:
        assert "never leave this machine" in place.inner_text("footer")
        file = json.dumps([*(tmp_path / "my photo.png").read_bytes()])
        place.evaluate(f"""() => {{ const data = new DataTransfer();
            data.items.add(new File([new Uint8Array({file})], "my photo.png", {{ type: "image/png" }}));
            const drop = new DragEvent("drop", {{ bubbles: true, dataTransfer: data }});
            document.querySelector(".drop").dispatchEvent(drop); }}""")
        until(place, lambda: place.evaluate("lab.translated || 0") == 1)
        assert "61 × 45 pixels" in place.inner_text(".drop")
        assert_drawn(place, "lab.models[0].canvas", model.translate(images)[0])
        with place.expect_download() as saved:
            place.get_by_role("button", name="Save as PNG").last.click()
        assert saved.value.suggested_filename == "CycleGAN_0_my_photo.png"
        slide(place, "original", 100)
        assert "inset(0px 0%" in place.evaluate("document.querySelector('.view .over').style.clipPath")
        place.get_by_role("button", name="B to A").click()
        until(place, lambda: place.evaluate("lab.translated") == 2)
        assert_drawn(place, "lab.models[0].canvas", model.translate(images, to="a")[0])


def test_an_image_is_enlarged_tile_by_tile_without_seams(chromium, written, tmp_path):  # noqa: F811
    model = lively(smallest(gans.SRResNet, image_shape=(3, 64, 64), scale=2))
    images = photograph(tmp_path / "a.png", 150, 139)
    with opened(chromium, written(model)) as place:
        place.set_input_files("input[type=file]", tmp_path / "a.png")
        until(place, lambda: place.evaluate("lab.translated || 0") == 1)
        assert "enlarged to 300 × 278" in place.inner_text(".drop")
        assert_drawn(place, "lab.models[0].canvas", model.translate(images)[0])
        photograph(tmp_path / "big.png", 1100, 1100)
        photograph(tmp_path / "small.png", 20, 30)
        place.select_option("select", "0")
        place.set_input_files("input[type=file]", tmp_path / "big.png")
        until(place, lambda: place.locator("progress").is_visible())
        place.set_input_files("input[type=file]", tmp_path / "small.png")  # which the other tiles do not hold up
        until(place, lambda: place.evaluate("[lab.result.width, lab.result.height]") == [40, 60])
        assert place.locator("progress").is_hidden()
        assert place.evaluate("lab.translated") == 3  # the first one in two sizes, and this; the large one was given up
        view = place.locator(".view")
        view.hover()
        assert place.locator(".lens").is_visible()
        place.set_input_files("input[type=file]", __file__)  # no image
        until(place, lambda: "is no image" in place.inner_text(".drop"))


def test_label_maps_are_painted_and_translated_and_each_seed_is_a_variant(chromium, written):  # noqa: F811
    model = lively(smallest(gans.Pix2Pix, image_shape=(3, 32, 32)))
    colours = {"background": "#0000aa", "wall": "#0000ff", "window": "#0055ff", "door": "#aa0000"}
    with opened(chromium, written(model, colours=colours)) as place:
        assert place.get_by_role("button", name="wall").is_visible()
        drawn = pixels(place, "lab.drawing.canvas")
        assert {tuple(p) for p in drawn.reshape(-1, 4)[:, :3]} <= {(0, 0, 170), (0, 0, 255), (0, 85, 255), (170, 0, 0)}
        box = place.locator(".paint").bounding_box()
        place.get_by_role("button", name="door").click()
        place.mouse.move(box["x"] + 2, box["y"] + 2)
        place.mouse.down()
        place.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        place.mouse.up()
        until(place, lambda: place.evaluate("lab.translated") == 2)
        painted = pixels(place, "lab.drawing.canvas")
        assert (painted[1:15, 1:15, :3] == (170, 0, 0)).all()
        source = torch.from_numpy(painted[..., :3]).permute(2, 0, 1)[None].float() / 127.5 - 1
        assert_drawn(place, "lab.models[0].canvas", model.translate_alike(source, torch.tensor(0))[0])
        place.get_by_role("button", name="Another variant").click()
        assert_drawn(place, "lab.models[0].canvas", model.translate_alike(source, torch.tensor(1))[0])
        place.get_by_role("button", name="Undo").click()
        until(place, lambda: (pixels(place, "lab.drawing.canvas") == drawn).all())


def test_domains_are_buttons_and_grey_images_are_those_of_pillow(chromium, written, tmp_path):  # noqa: F811
    model = lively(smallest(gans.StarGAN))
    photograph(tmp_path / "a.png", 40, 32)
    grey = torch.from_numpy(np.array(Image.open(tmp_path / "a.png").convert("L")))[None, None] / 127.5 - 1
    with opened(chromium, written(model)) as place:
        place.set_input_files("input[type=file]", tmp_path / "a.png")
        until(place, lambda: place.evaluate("lab.translated || 0") == 1)
        assert_drawn(place, "lab.models[0].canvas", model.translate(grey, torch.eye(3)[:1])[0])
        place.get_by_role("button", name="c", exact=True).click()
        assert_drawn(place, "lab.models[0].canvas", model.translate(grey, torch.eye(3)[2:])[0])


def test_a_browser_without_webassembly_is_told_so(chromium, written):  # noqa: F811
    path = written(lively(smallest(gans.GAN)))
    place = chromium.new_page()
    place.add_init_script("delete window.WebAssembly")
    place.goto(path.as_uri())
    until(place, lambda: "no WebAssembly" in place.inner_text("#status"))
    place.close()


def test_the_nearest_training_images_of_the_runs_samples_are_shown(chromium, written):  # noqa: F811
    model = lively(smallest(gans.GAN))
    noise = model.noise(2)
    dot = "data:image/png;base64," + base64.b64encode(png_of(torch.zeros(1, 1, 1, dtype=torch.uint8))).decode()
    samples = [{"noise": z.tolist(), "label": 0, "nearest": dot} for z in noise]
    with opened(chromium, written(model, neighbors={"space": "pixels", "samples": samples})) as place:
        place.locator(".near button").nth(1).click()
        assert_drawn(place, "lab.large[0]", model.sample_from(noise)[1])
        assert place.locator(".panels .near img").get_attribute("src") == dot
        assert place.evaluate("lab.kept().length") == 1
