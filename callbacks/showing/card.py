"""The model card of an export: README.md, as model hubs show it."""

from typing import Any

from callbacks.showing.facts import Facts

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
    paper = f"[{values['paper_title']}]({values['paper']})" if values["paper"] else values["paper_title"]
    text = [
        "---",
        "license: other  # fill in: the licence under which these weights may be used, such as mit",
        f"pipeline_tag: {TAGS['images' if translates else 'noise']}",
        "tags: [gan, pytorch, onnx]",
        "---",
        "",
        f"# {name}{on}",
        "",
        f"{verb}, {width}x{height} pixels with {channels} channel{'s' * (channels > 1)}. Paper: {paper}.",
        f"Trained for {values['step']:,} generator updates ({values['images_seen']:,} images seen)"
        + (", and the moving average of its weights taken." if values["averaged"] else "."),
        "",
        "## Files",
        "",
        "| File | What it holds |",
        "|---|---|",
    ]
    for file, error in files.items():
        if error is None:
            text.append(f"| `{file}` | the generator's weights and, in its metadata, the settings to build it with |")
            continue
        network = networks[file.removesuffix(".onnx")]
        given = "; ".join(f"`{key}` {shape(i)}: {i['about']}" for key, i in network["inputs"].items())
        out = network["output"]
        text.append(
            f"| `{file}` | from {given} to `{out['name']}` {shape(out)}: {out['about']}. Differs "
            f"from PyTorch by {error:.1e} at most, of {tolerance:g} allowed, in float32 |"
        )
    text += ["", "## Use", "", "```python", *usage(values), "```", "", "With the lab itself:", "", "```python"]
    text += ["import gans", "", 'model = gans.from_export(".")  # reads generator.safetensors; nothing is unpickled']
    text += ["images = model.translate(images)" if translates else "images = model.sample(16)", "```", ""]
    text += ["## Scores", ""]
    if facts.scores:
        text += ["| Score | Value |", "|---|---|", *(f"| {k} | {v:.6g} |" for k, v in facts.scores.items()), ""]
        for kind, protocol in facts.protocols.items():
            text += [f"Protocol of {kind}: {', '.join(f'{k} {v}' for k, v in protocol.items())}.", ""]
    else:
        text += ["None were measured at this step.", ""]
    if facts.direction:
        way = f"from {facts.direction[0]} to {facts.direction[-1]} of the data"
        back = ", and `generator_back` the other way" * ("generator_back" in networks)
        text += [f"`generator` goes {way}{back}.", ""]
    text += ["## Training", ""]
    if facts.data:
        plain = {k: v for k, v in facts.settings.items() if isinstance(v, int | float) or k == "direction"}
        settings = ", ".join(f"{k} {v}" for k, v in plain.items() if v is not None)
        text += [f"Data: {facts.data}" + (f" ({settings})" if settings else "") + ".", ""]
    if facts.command:
        text += ["```bash", facts.command, "```", ""]
    if facts.versions:
        text += [f"Versions: {', '.join(f'{k} {v}' for k, v in facts.versions.items())}.", ""]
    text += ["## Licence and limits", ""]
    text += ["To be filled in: the licence of the weights and that of the training images, what these show and do not."]
    return "\n".join([*text, ""])


def shape(given: dict[str, Any]) -> str:
    """The type and sizes of a tensor, such as float32 (batch, 100)."""
    return f"{given.get('type', 'float32')} ({', '.join(map(str, given['shape']))}{',' * (len(given['shape']) == 1)})"


def usage(values: dict[str, Any]) -> list[str]:
    """Lines of Python that call the generator with ONNX Runtime and NumPy alone."""
    inputs = values["networks"]["generator"]["inputs"]
    sizes = {"batch": 4, "height": values["image_shape"][1], "width": values["image_shape"][2]}
    made = {
        "normal": "rng.standard_normal({0}).astype(np.float32)",
        "uniform": "rng.uniform(-1, 1, {0}).astype(np.float32)",
        "numbers": "np.zeros({0}, np.{1})",
        "one": "np.ones({0}, np.{1})",
    }
    text = ["import numpy as np", "import onnxruntime", "", "rng = np.random.default_rng(0)", "given = {"]
    for name, given in inputs.items():
        size = tuple(sizes.get(side, side) for side in given["shape"])
        text.append(f'    "{name}": {made[given["values"]].format(size, given["type"])},  # {given["about"]}')
    call = 'session = onnxruntime.InferenceSession("generator.onnx")'
    return [*text, "}", call, "(images,) = session.run(None, given)  # in [-1, 1]"]
