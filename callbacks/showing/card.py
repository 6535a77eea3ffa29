"""The model card of an export: README.md, as model hubs show it."""

from typing import Any

from callbacks.showing.facts import Facts

TOLD = ("image_size", "load_size", "horizontal_flip", "batch_size", "scale", "direction", "classes")
TAGS = {"noise": "unconditional-image-generation", "images": "image-to-image"}


def card(values: dict[str, Any], facts: Facts, files: dict[str, float | None], tolerance: float) -> str:
    """The text of a card.

    Args:
        values: What ``gans.export.show.described`` says of the model.
        facts: What its run says.
        files: The files beside the card, and by how much each network differs from PyTorch at most.
        tolerance: By how much it may.
    """
    name, networks = values["gan"], values["networks"]
    translates = "images" in networks["generator"]["inputs"]
    channels, height, width = values["image_shape"]
    on = f" on {facts.data}" if facts.data else ""
    verb = "Turns images into images" if translates else "Turns noise into images"
    titled = f"[{values['paper_title']}]({values['paper']})" if values["paper"] else values["paper_title"]
    paper = f" Paper: {titled}." if titled else ""
    text = [
        "---",
        "license: other  # fill in: the licence under which these weights may be used, such as mit",
        f"pipeline_tag: {TAGS['images' if translates else 'noise']}",
        "tags: [gan, pytorch, onnx]",
        "---",
        "",
        f"# {name}{on}",
        "",
        f"{verb}, {width}x{height} pixels with {channels} channel{'s' * (channels > 1)}.{paper}",
        f"Trained for {values['step']:,} generator updates ({values['images_seen']:,} images seen)"
        + (", and the moving average of its weights taken." if values["averaged"] else "."),
    ]
    if facts.direction:
        way = " to ".join(facts.sides if facts.direction == "AtoB" else facts.sides[::-1])
        back = ", and `generator_back` the other way" * ("generator_back" in networks)
        text += ["", f"`generator` goes from {way}{back}."]
    text += ["", "## Files", "", "| File | What it holds | Differs from PyTorch by |", "|---|---|---|"]
    for file, error in files.items():
        if error is None:
            text.append(f"| `{file}` | the generator's weights and, in its metadata, the settings to build it with | |")
        else:
            text.append(f"| `{file}` | {_ends(networks[file.removesuffix('.onnx')])} | {error:.1e} |")
    text += ["", f"Differences are the largest found on random inputs, of {tolerance:g} allowed, in float32.", ""]
    text += ["| Input or output | Type and sizes | What it is |", "|---|---|---|"]
    tensors: dict[str, dict[str, Any]] = {}
    for network in networks.values():
        tensors |= network["inputs"] | {network["output"]["name"]: network["output"]}
    text += [f"| `{key}` | {shape(given)} | {meaning(given)} |" for key, given in tensors.items()]
    text += ["", "## Use", "", "With NumPy and ONNX Runtime:", "", "```python", *usage(values), "```", ""]
    text += ["With the lab:", "", "```python", *_of_the_lab(values), "```", "", "## Scores", ""]
    if facts.scores:
        text += ["| Score | Value |", "|---|---|", *(f"| {k} | {v:.6g} |" for k, v in facts.scores.items()), ""]
        for kind, protocol in facts.protocols.items():
            text += [f"Protocol of {kind}: {', '.join(f'{k} {v}' for k, v in protocol.items())}.", ""]
    else:
        text += ["None were measured at this step.", ""]
    text += ["## Training", ""]
    if facts.data:
        settings = ", ".join(f"{k} {facts.settings[k]}" for k in TOLD if facts.settings.get(k) not in (None, False))
        text += [f"Data: {facts.data}" + (f" ({settings})" if settings else "") + ".", ""]
    if facts.command:
        text += ["```bash", facts.command, "```", ""]
    told = ", ".join(f"{k} {v}" for k, v in facts.versions.items())
    text += [f"Versions: {told}." if told else "To be filled in: the data, the command and the versions.", ""]
    text += ["## Licence and limits", ""]
    text += ["To be filled in: the licence of the weights and that of the training images, what these show and do not."]
    return "\n".join([*text, ""])


def _ends(network: dict[str, Any]) -> str:
    return f"from {', '.join(f'`{key}`' for key in network['inputs'])} to `{network['output']['name']}`"


def meaning(given: dict[str, Any]) -> str:
    """What a tensor is, with the names of its values where these are more than numbers."""
    names = given.get("names", [])
    if len(given["shape"]) != 1 or all(name.removeprefix("class ").isdigit() for name in names):
        return str(given["about"])
    told = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return f"{given['about']}: {' '.join(told.split())}".replace("|", "\\|")  # which would end the cell of a table


def shape(given: dict[str, Any]) -> str:
    """The type and sizes of a tensor, such as float32 (batch, 100)."""
    return f"{given.get('type', 'float32')} ({', '.join(map(str, given['shape']))}{',' * (len(given['shape']) == 1)})"


def usage(values: dict[str, Any]) -> list[str]:
    """Lines of Python that call the generator with ONNX Runtime and NumPy alone, and keep the first image."""
    inputs = values["networks"]["generator"]["inputs"]
    sizes = {"batch": 4, "height": values["image_shape"][1], "width": values["image_shape"][2]}
    text = ["import numpy as np", "import onnxruntime", "from PIL import Image", "", "rng = np.random.default_rng(0)"]
    text += ["given = {"]
    for name, given in inputs.items():
        size = tuple(sizes.get(side, side) for side in given["shape"])
        made = {
            "normal": f"rng.standard_normal({size}).astype(np.float32)",
            "uniform": f"rng.uniform(-1, 1, {size}).astype(np.float32)",
            "numbers": f"np.zeros({size}, np.{given['type']})",
            "one": f"np.ones({size}, np.{given['type']})",
        }[given["values"]]
        if given["values"] == "one" and given["names"]:  # one of them for each image
            made = f"np.eye({size[1]}, dtype=np.{given['type']})[np.zeros({size[0]}, int)]"
        text.append(f'    "{name}": {made},  # {given["about"]}')
    text.append("}")
    if "images" in inputs:
        mode = "L" if values["image_shape"][0] == 1 else "RGB"
        axes = "[None, None]" if mode == "L" else ".transpose(2, 0, 1)[None]"
        text.append(f'# of a file: np.asarray(Image.open(FILE).convert("{mode}"), np.float32){axes} / 127.5 - 1')
    text += ['session = onnxruntime.InferenceSession("generator.onnx")', "(images,) = session.run(None, given)"]
    text.append("pixels = ((images[0].transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)")
    return [*text, 'Image.fromarray(pixels.squeeze()).save("image.png")']


def _of_the_lab(values: dict[str, Any]) -> list[str]:
    """The same by the lab, which reads generator.safetensors; nothing is unpickled."""
    channels, height, width = values["image_shape"]
    module, name = values["class"].rpartition(".")[::2]
    own = not module.startswith("gans.")
    text = ["import torch", "", f"from {module} import {name}" if own else "import gans", ""]
    text.append(f'model = {name if own else "gans"}.from_export(".")')
    inputs = values["networks"].get("generator", {"inputs": {}})["inputs"]
    if "images" not in inputs:
        return [*text, "images = model.sample(16)  # (16, C, H, W) in [-1, 1]"]
    more = f", torch.eye({inputs['domains']['shape'][1]})[:1]  # the first domain" if "domains" in inputs else ""
    call, _, comment = more.partition("  ")
    made = f"images = torch.rand(1, {channels}, {height}, {width}) * 2 - 1  # yours, in [-1, 1]"
    return [*text, made, f"images = model.translate(images{call}){'  ' * bool(comment)}{comment}"]
