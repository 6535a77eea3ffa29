"""``train.py export`` and ``train.py explore``: what they write, say and refuse."""

import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import fit, images, smallest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch.utils.data import DataLoader

import gans
import train
from callbacks import Neighbors
from callbacks.showing import command, runtime
from callbacks.showing.card import card
from callbacks.showing.facts import Facts, facts_of, neighbors
from callbacks.showing.page import page
from command_line import ROOT, assert_one_sentence, run_train
from gans.export import folder, graph, show

TOOLS = command.Tools(show.load, show.described, folder.write, show.shown, graph.TOLERANCE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder of a GAN on digits, with scores."""
    place = tmp_path_factory.mktemp("trained")
    words = ["--model=GAN", "--model.hidden=8", "--data=Digits", "--data.image_size=16", "--trainer.max_steps=4"]
    words += ["--trainer.val_check_interval=2", "--score.features=pixels", "--score.num_images=20", "--run_dir=out"]
    words += ["--neighbors.count=3", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    done = run_train(words, place)
    assert done.returncode == 0, done.stderr
    return place / "out", words


@pytest.fixture
def fake(monkeypatch):
    """Another runtime in the place of ONNX Runtime Web's, which need not be fetched."""
    monkeypatch.setattr(command, "runtime", lambda _: {"a.mjs": b"script", "a.wasm": b"binary"})


def run(*words, tools=TOOLS):
    command.showing(list(words), tools)


def brief(model):
    """What ``show.shown`` gives, without networks, whose export takes seconds."""
    return show.described(model), {}


def test_an_export_is_a_folder_for_a_hub(trained, tmp_path):
    out, _ = trained
    target = tmp_path / "for others"
    done = run_train(["export", f"--ckpt_path={out}/checkpoints/best.ckpt", f"--export_dir={target}"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "generator.onnx" in done.stdout
    assert "at most (0.001 allowed)" in done.stdout
    assert {path.name for path in target.iterdir()} == {"README.md", "generator.onnx", "generator.safetensors"}
    text = (target / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head == {
        "license": "other",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "pytorch", "onnx"],
    }
    scores = json.loads((out / "scores.json").read_text())["best"]
    for told in (
        "# GAN on Digits",
        "[Generative Adversarial Networks](https://arxiv.org/abs/1406.2661)",
        f"{scores['step']} generator updates",
        "moving average of its weights",
        f"| score/frechet_pixels | {scores['scores']['score/frechet_pixels']:.6g} |",
        "Protocol of scores: features pixels",
        "generated_images 20",
        "python train.py --model=GAN --model.hidden=8 --data=Digits",
        f"torch {torch.__version__}",
        "To be filled in: the licence",
    ):
        assert told in text
    assert str(tmp_path) not in text
    # The card's own code runs, beside its files.
    first, second = (part.split("```")[0] for part in text.split("```python\n")[1:3])
    code = f"{first}\nprint(images.shape, abs(images).max() <= 1)\n{second}\nprint(tuple(images.shape))"
    command = [sys.executable, "-c", code]
    variables = {"PYTHONPATH": str(ROOT), "PATH": ""}
    found = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False, env=variables)
    assert found.stdout.split("\n")[:2] == ["(4, 1, 16, 16) True", "(16, 1, 16, 16)"], found.stderr


def test_a_card_that_was_filled_in_stays(trained, tmp_path, capsys):
    out, _ = trained
    words = ["export", f"--ckpt_path={out}/checkpoints/last.ckpt", f"--export_dir={tmp_path}"]
    run(*words)
    run(*words)  # the same again
    assert not (tmp_path / "README.new.md").exists()
    (tmp_path / "README.md").write_text("mine")
    run(*words)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert "# GAN on Digits" in (tmp_path / "README.new.md").read_text()
    assert "as it was" in capsys.readouterr().out


def test_exports_lie_in_the_run_by_their_step(trained, capsys):
    out, _ = trained
    run("export", "--ckpt_path=last", f"--run_dir={out}")
    assert (out / "export-0000004/generator.onnx").is_file()
    assert f"exported to {out}/export-0000004" in capsys.readouterr().out


@pytest.mark.parametrize("cls", [gans.StarGAN, gans.StyleDCGAN, gans.InfoGAN, gans.SRResNet, gans.ConvolutionalCGAN])
def test_the_code_on_a_card_fits_the_network(cls, tmp_path, monkeypatch):
    model = smallest(cls, **({"num_classes": 3} if cls is gans.ConvolutionalCGAN else {}))
    graph.write(model, model.portable()["generator"], tmp_path / "generator.onnx")
    monkeypatch.chdir(tmp_path)
    list(folder.write(model, tmp_path)) if cls is gans.StarGAN else None
    values = show.described(model)
    if cls is gans.ConvolutionalCGAN:  # whose classes have names
        values["networks"]["generator"]["inputs"]["label"]["names"] = ["a cat", "class 1", "a\nfox|"]
    text = card(values, Facts(), {"generator.onnx": 1e-6}, 1e-3)
    if cls is gans.ConvolutionalCGAN:
        assert "a number from 0 to 2: 0 a cat, 1 class 1, 2 a fox\\| |" in text
    assert "Paper: [" in text
    scope: dict = {}
    first, second = (part.split("```")[0] for part in text.split("```python\n")[1:3])
    exec(first, scope)
    assert scope["images"].shape[0] == 4
    assert Image.open("image.png").size[0] % 16 == 0
    if cls is gans.StarGAN:  # as a reader would paste them, one after the other
        exec(second, scope)
        assert scope["images"].shape == (1, 1, 32, 32)


def test_what_a_run_says_of_a_moment(trained):
    out, _ = trained
    facts = facts_of(out / "checkpoints/last.ckpt", 4)
    assert facts.data == "Digits"
    assert facts.scores["score/frechet_pixels"] > 0
    assert facts_of(out / "checkpoints/last.ckpt", 3).scores == {}  # those of other steps are others'
    near = neighbors(out / "checkpoints/last.ckpt", 4)
    assert near["space"] == "pixels"
    assert [len(sample["noise"]) for sample in near["samples"]] == [100] * 3
    assert all(sample["nearest"].startswith("data:image/png;base64,iVBOR") for sample in near["samples"])
    assert neighbors(out / "checkpoints/last.ckpt", 3) is None


def test_later_evaluations_are_the_scores_that_count_and_damaged_files_are_none(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("data:\n  class_path: datamodules.Digits\n")
    path = tmp_path / "checkpoints/last.ckpt"
    path.touch()
    entry = {"step": 4, "scores": {"score/x": 2.0, "score/y": float("nan"), "score/z": None}, "protocol": {"a": 1}}
    for name, value in (("scores.json", 1.0), ("test-1/scores.json", 2.0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(
            json.dumps({"history": [entry | {"scores": entry["scores"] | {"score/x": value}}]})
        )
    assert facts_of(path, 4).scores == {"score/x": 2.0}
    for wrong in ("{", "[]", '{"history": [1]}'):
        (tmp_path / "test-1/scores.json").write_text(wrong)
        assert facts_of(path, 4).scores == {"score/x": 1.0}
    (tmp_path / "neighbors").mkdir()
    for wrong in (b"", b"PK\x03\x04", (tmp_path / "config.yaml").read_bytes()):
        (tmp_path / "neighbors/pixels_step_0000004.npz").write_bytes(wrong)
        assert neighbors(path, 4) is None
    np.savez(tmp_path / "neighbors/pixels_step_0000004.npz", images=np.array([object()]), noise=1, label=1)
    assert neighbors(path, 4) is None  # nothing is unpickled
    (tmp_path / "config.yaml").write_text("data: [")
    assert facts_of(path, 4).data == ""
    assert facts_of(tmp_path / "apart.ckpt", 4).data == ""


def test_neighbours_keep_the_noise_that_their_rows_are_made_of(tmp_path):
    model = smallest(gans.CGAN, num_classes=3, image_shape=(1, 8, 8))
    loader = DataLoader([(image, n % 3) for n, image in enumerate(images(12, (1, 8, 8)))], batch_size=4)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, accelerator="cpu", callbacks=[Neighbors(count=4)], **off)
    trainer.fit(model, loader)
    (path,) = tmp_path.glob("**/*.npz")
    with np.load(path) as found:
        assert found["images"].shape == (4, 9, 1, 8, 8)
        assert found["label"].tolist() == [0, 1, 2, 0]
        made = model.sample_from(torch.from_numpy(found["noise"]), torch.from_numpy(found["label"]))
        expected = made.add(1).mul(127.5).round().numpy().astype(int)
        assert np.abs(found["images"][:, 0].astype(int) - expected).max() <= 1


# Pages


@pytest.mark.usefixtures("fake")
def test_a_page_is_one_file_with_several_models(trained, tmp_path, capsys):
    out, _ = trained
    both = f"--ckpt_path=[{out}/checkpoints/best.ckpt, {out}/checkpoints/last.ckpt]"
    run("explore", both, f"--page={tmp_path}/deep/page.html")
    text = (tmp_path / "deep/page.html").read_text()
    spec = json.loads(text.split('id="spec">')[1].split("</script>")[0])
    assert [model["title"] for model in spec["models"]] == [f"GAN on Digits, step {m['step']}" for m in spec["models"]]
    assert any("frechet_pixels" in fact for fact in spec["models"][1]["facts"])
    assert "(of 20 images)" in " ".join(spec["models"][1]["facts"])
    assert f"{tmp_path}/deep/page.html (" in capsys.readouterr().out
    assert text.count('<script type="text/plain" id="network-') == 2
    assert not [line for line in text.splitlines() if "src=" in line and "http" in line]


@pytest.mark.usefixtures("fake")
def test_a_page_lies_in_the_run_and_shows_the_runs_neighbours(trained):
    out, _ = trained
    run("explore", f"--ckpt_path={out}/checkpoints/last.ckpt")
    spec = json.loads((out / "explore.html").read_text().split('id="spec">')[1].split("</script>")[0])
    assert len(spec["models"][0]["neighbors"]["samples"]) == 3


def test_nothing_in_a_page_ends_its_script_or_is_taken_for_a_place():
    model = {"title": "</script><b>", "facts": ["SCRIPTS", "BLOBS"], "networks": {}}
    text = page("</title> STYLE", [model], [{}], {"a": b"", "b": b""})
    assert "</script><b>" not in text
    assert text.count("<h1>&lt;/title&gt; STYLE</h1>") == 1
    assert json.loads(text.split('id="spec">')[1].split("</script>")[0])["models"] == [model]


def saved(tmp_path, model, name):
    trainer = fit(model, max_steps=1, data=None if isinstance(model, gans.GAN) else (images(4, (1, 32, 32)),) * 2)
    trainer.save_checkpoint(tmp_path / name)
    return tmp_path / name


@pytest.mark.usefixtures("fake")
def test_palettes_are_those_of_label_maps(tmp_path):
    from datamodules import Cityscapes, Facades

    path = saved(tmp_path, smallest(gans.Pix2Pix), "p.ckpt")
    cycle = saved(tmp_path, smallest(gans.CycleGAN), "c.ckpt")
    for checkpoint, direction, colours in (
        (path, "BtoA", Facades.colours),
        (path, "AtoB", {}),
        (cycle, "AtoB", Facades.colours),  # which the way back begins with
    ):
        data = {"class_path": "datamodules.Facades", "init_args": {"direction": direction}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        run("explore", f"--ckpt_path={checkpoint}", tools=replace(TOOLS, shown=brief))
        spec = json.loads((tmp_path / "explore.html").read_text().split('id="spec">')[1].split("</script>")[0])
        assert spec["models"][0]["colours"] == colours
        ways = ["photographs to label maps", "label maps to photographs"]
        assert spec["models"][0]["directions_of_data"] == (ways if direction == "AtoB" else ways[::-1])
    assert all(len(colour) == 7 for of in (Facades, Cityscapes) for colour in of.colours.values())


def test_a_gan_of_ones_own_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import gans\n\nclass Mine(gans.GAN):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine

    path = saved(tmp_path, smallest(mine.Mine), "m.ckpt")
    with pytest.raises(
        MisconfigurationException, match=r"none of the lab's models: name its class, as --model=my_file"
    ):
        run("export", f"--ckpt_path={path}")
    run("export", f"--ckpt_path={path}", "--model=mine.Mine", f"--export_dir={tmp_path}/out")
    assert type(mine.Mine.from_export(tmp_path / "out")) is mine.Mine
    with pytest.raises(MisconfigurationException, match="call from_export of its own"):
        gans.from_export(tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "from mine import Mine" in text
    assert "Mine.from_export" in text
    assert (tmp_path / "out/generator.safetensors").stat().st_mode & 0o044 == 0o044  # for others to read
    with pytest.raises(MisconfigurationException, match="names no GAN"):
        run("export", f"--ckpt_path={path}", "--model=mine.Other")


@pytest.mark.parametrize(
    ("words", "culprits"),
    [
        (["export"], ["needs a trained model: give --ckpt_path"]),
        (["explore"], ["needs a trained model: give --ckpt_path"]),
        (["export", "--ckpt_path=nothing.ckpt"], ["--ckpt_path=nothing.ckpt does not exist"]),
        (["export", "--ckpt_path=[a.ckpt,b.ckpt]"], ["must name one checkpoint"]),
        (["export", "--ckpt_path=a.ckpt", "--opset=9"], ["--opset is no option of export", "--export_dir"]),
        (["explore", "--ckpt_path=a.ckpt", "--export_dir=x"], ["--export_dir is no option of explore", "--page"]),
        (["export", f"--ckpt_path={__file__}", f"--export_dir={__file__}"], ["is no checkpoint"]),
        (["export", "runs/a.ckpt"], ["runs/a.ckpt belongs to no option", "--ckpt_path=runs/a.ckpt"]),
        (["explore", "--ckpt_path=[a.ckpt"], ["--ckpt_path=[a.ckpt"]),
        (["explore", "--ckpt_path=[]"], ["--ckpt_path=[]"]),
    ],
)
def test_what_is_typed_wrong_ends_in_one_sentence(words, culprits):
    with pytest.raises(MisconfigurationException) as told:
        run(*words)
    for culprit in culprits:
        assert culprit in str(told.value)


def test_the_command_line_says_so_too(tmp_path):
    assert_one_sentence(run_train(["exprot"], tmp_path), ["did you mean export?"])
    (tmp_path / "a.ckpt").write_bytes(b"nothing")
    done = run_train(["explore", "--ckpt_path=a.ckpt", "--runtime=nowhere"], tmp_path)
    assert_one_sentence(done, ["a.ckpt is no checkpoint"])


def test_help_says_what_there_is(capsys):
    for name in ("export", "explore"):
        run(name, "--help")
        told = capsys.readouterr().out
        assert f"usage: python train.py {name}" in told
        assert all(f"--{option}=" in told for option in command.OPTIONS[name])
        assert f"python train.py {name}" in train.DESCRIPTION


@pytest.mark.usefixtures("fake")
def test_kinds_are_not_mixed_and_pages_are_files(trained, tmp_path):
    out, _ = trained
    last = f"{out}/checkpoints/last.ckpt"
    for page_file in (tmp_path, tmp_path / "page", f"{tmp_path}/folder/"):
        with pytest.raises(MisconfigurationException, match=r"must name a file that ends in \.html"):
            run("explore", f"--ckpt_path={last}", f"--page={page_file}", tools=replace(TOOLS, shown=brief))
    (tmp_path / "file").touch()
    for words in (["explore", f"--page={tmp_path}/file/p.html"], ["export", f"--export_dir={tmp_path}/file/x"]):
        with pytest.raises(MisconfigurationException, match="cannot be written"):
            run(words[0], f"--ckpt_path={last}", words[1], tools=replace(TOOLS, shown=brief))
    path = saved(tmp_path, smallest(gans.Pix2Pix), "p.ckpt")
    with pytest.raises(MisconfigurationException, match="turn noise into images and others that translate"):
        run("explore", f"--ckpt_path=[{last},{path}]")


# The runtime


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, and files that are the right ones."""
    import hashlib

    content = {"ort.wasm.bundle.min.mjs": b"script", "ort-wasm-simd-threaded.wasm": b"binary"}
    monkeypatch.setattr(runtime, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(runtime, "FILES", {name: hashlib.sha256(c).hexdigest() for name, c in content.items()})
    monkeypatch.setattr(runtime, "URL", "file:///nowhere")
    monkeypatch.setattr(runtime.shutil, "which", lambda _: None)
    return content


def test_the_runtime_is_packed_by_npm_verified_and_kept(home, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    for name, data in home.items():
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "right.tgz", "w:gz") as archive:
        for name in home:
            archive.add(tmp_path / name, f"package/dist/{name}")
        archive.add(tmp_path / name, "../../outside")
    (tmp_path / "ort.wasm.bundle.min.mjs").write_bytes(b"something else")
    with tarfile.open(tmp_path / "wrong.tgz", "w:gz") as archive:
        for name in home:
            archive.add(tmp_path / name, f"package/dist/{name}")
    monkeypatch.setattr(runtime.shutil, "which", lambda _: str(npm))
    for packed, right in (("wrong", False), ("missing", False), ("right", True)):
        npm.write_text(f"#!/bin/sh\ncp {tmp_path}/{packed}.tgz .\n")
        npm.chmod(0o755)
        if right:
            assert runtime.runtime() == home
        else:
            with pytest.raises(MisconfigurationException, match=r"could not be fetched, .* give --runtime=FOLDER"):
                runtime.runtime()
            assert not list(tmp_path.glob("cache/*/*"))
    npm.unlink()
    assert runtime.runtime() == home  # from the cache
    assert not (tmp_path.parent / "outside").exists()
    (kept,) = tmp_path.glob("cache/*")
    (kept / "ort-wasm-simd-threaded.wasm").write_bytes(b"changed")
    with pytest.raises(MisconfigurationException, match="could not be fetched"):
        runtime.runtime()  # it is not taken on trust


def test_the_runtime_is_downloaded_where_there_is_no_npm(home, tmp_path, monkeypatch):
    (tmp_path / "dist").mkdir()
    for name, data in home.items():
        (tmp_path / "dist" / name).write_bytes(data)
    monkeypatch.setattr(runtime, "URL", (tmp_path / "dist").as_uri())
    assert runtime.runtime() == home
    assert len(list(tmp_path.glob("cache/*/*"))) == 2


def test_a_folder_of_ones_own_is_verified_too(home, tmp_path):
    with pytest.raises(MisconfigurationException, match="holds no ort"):
        runtime.runtime(str(tmp_path))
    for name, data in home.items():
        (Path(tmp_path) / name).write_bytes(data)
    assert runtime.runtime(str(tmp_path)) == home
    (tmp_path / "ort.wasm.bundle.min.mjs").write_bytes(b"evil")
    with pytest.raises(MisconfigurationException, match="is not that of onnxruntime-web"):
        runtime.runtime(str(tmp_path))
