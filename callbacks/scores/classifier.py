"""Features of a small classifier trained on the data itself, for images Inception knows nothing of (grey digits)."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from callbacks.pictures.images import to_uint8
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.files import save, unwritten
from callbacks.runs.ranks import agreed, gathered
from callbacks.scores.features import Extractor, Features, create, fingerprint

SIZE = 32
EPOCHS = 3
LEAST_STEPS = 300  # small data sets are seen more often
BATCH = 128


class SmallClassifier(Extractor):
    """Four convolutions, 128 features, one linear layer; images are brought to 32x32.

    Args:
        channels: Channels of the images, 1 or 3.
        num_classes: Classes to tell apart.
    """

    resize = f"bilinear to {SIZE}x{SIZE}, antialiased"

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(128, num_classes)

    def forward(self, images: Tensor) -> Features:
        features = self.body(reduced(images).float().div(127.5).sub(1))
        return Features(features, self.head(features))


def reduced(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) at the classifier's size, uint8."""
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    resized = interpolate(images.float(), (SIZE, SIZE), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def extractor_of(
    trainer: Trainer, features: str | nn.Module, weights: str | None, cache_dir: Path, made: Extractor | None = None
) -> Extractor:
    """The extractor that ``--score.features`` names, with the same weights on all ranks, which call this together.

    Args:
        trainer: The trainer, with its data.
        features: "classifier" for that of the data, or what ``create`` takes.
        weights: As there.
        cache_dir: Folder that keeps the classifier; the first rank's counts.
        made: One that was made already; the classifier may be that of other data.

    Raises:
        MisconfigurationException: On any of the ranks it cannot be made.
    """
    extractor = None if features == "classifier" else made
    for first in (True, False):  # the first of a machine downloads for the others
        with agreed(trainer):
            if extractor is None and (trainer.local_rank == 0) == first:
                if features == "classifier":
                    device, half = trainer.strategy.root_device, "bf16" in str(trainer.precision)
                    extractor = classifier_of(trainer.datamodule, cache_dir, device, half, trainer.is_global_zero)
                else:
                    extractor = create(features, weights)
    assert extractor is not None
    if len(set(gathered(trainer, fingerprint(extractor)) if trainer.world_size > 1 else ())) > 1:
        extractor.load_state_dict(trainer.strategy.broadcast(extractor.state_dict()))
    return extractor


def check_classes(data: Any) -> None:
    """Raise MisconfigurationException where a data module has no classes that a classifier could tell apart."""
    if getattr(data, "num_classes", 0) < 2:
        raise MisconfigurationException(
            "--score.features=classifier needs labelled --data, such as a folder with one sub-folder a class; "
            "inception and pixels need none"
        )


def classifier_of(
    data: Any, cache_dir: Path, device: torch.device | str = "cpu", half: bool = True, trained: bool = True
) -> SmallClassifier:
    """The classifier of a data module, trained on its labelled training images once and kept in a file.

    Args:
        data: Data module with ``num_classes``, ``image_shape``, ``reference`` and ``ordered``.
        cache_dir: Folder that keeps the file.
        device: Where to train it.
        half: Whether to train it in bfloat16, which processors without instructions for it are slow to emulate.
        trained: Whether it is wanted with its weights.

    Raises:
        MisconfigurationException: The data has no classes.
    """
    check_classes(data)
    path = cache_dir / f"classifier-{data.reference('train')}.pt"
    with isolated_rng(0, torch.device(device)):
        network = SmallClassifier(data.image_shape[0], data.num_classes)
        if trained and not _load(network, path):
            torch.manual_seed(0)
            fresh = SmallClassifier(data.image_shape[0], data.num_classes)
            batches = [data.on_after_batch_transfer(batch, 0) for batch in data.ordered("train")]
            images = torch.cat([reduced(to_uint8(batch[0])).cpu() for batch in batches])
            train(fresh.to(device), images, torch.cat([batch[1].cpu() for batch in batches]), half)
            weights = fresh.cpu().state_dict()
            network.load_state_dict(weights)  # in the memory order that it has when it is read from the file
            try:
                save(weights, path)
            except OSError as error:
                unwritten("classifier", path, error)
    return network.requires_grad_(False).eval()


def _load(network: SmallClassifier, path: Path) -> bool:
    """Give a network the weights that an earlier run kept; False where there are none, or a damaged file."""
    if not path.exists():
        return False
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # torch raises many kinds for files that are not its own
        rank_zero_warn(f"{path} is damaged; the classifier of the data is trained anew")
        return False
    return True


def train(network: SmallClassifier, images: Tensor, labels: Tensor, half: bool = True) -> None:
    """Train on uint8 images (N, C, 32, 32) and their classes (N,), in bfloat16 or not: Adam, one cycle of the rate."""
    from tqdm import tqdm

    device = network.head.weight.device
    steps = max(LEAST_STEPS, EPOCHS * len(images) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.to(memory_format=torch.channels_last).train()
    for _ in tqdm(range(steps), desc="Training the classifier", unit="step", leave=False):
        chosen = torch.randint(len(images), (BATCH,))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            _, logits = network(images[chosen].to(device))
        optimizer.zero_grad()
        cross_entropy(logits.float(), labels[chosen].to(device)).backward()
        optimizer.step()
        schedule.step()
