"""How well a small network reads label maps from photographs of facades: pix2pix's FCN-score.

Photographs made from label maps are good if a network that has learned on real ones finds in them what the maps ask for
(Isola et al. 1611.07004, section 3.4, which takes FCN-8s for Cityscapes). The network is trained once on the real
training photographs and kept; this small one suits the 12 classes of CMP's facades at 64 px.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, one_hot, pad

import datamodules
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.files import save

SIZE = 64
FULL = 256  # of the label maps, whose colours are told apart before they are made smaller
STEPS, BATCH = 400, 16
# What the classes are painted in; the files are JPEG, so that a pixel's colour is only near one of these.
PALETTE = torch.tensor(
    [(0, 0, 170), (0, 0, 255), (0, 85, 255), (0, 170, 255), (0, 255, 255), (85, 255, 170),
     (170, 255, 85), (255, 255, 0), (255, 170, 0), (255, 85, 0), (255, 0, 0), (170, 0, 0)]
)  # fmt: skip


def classes_of(maps: Tensor, size: int = SIZE) -> Tensor:
    """The most frequent class (N, size, size) of every patch of label maps (N, 3, H, W), uint8."""
    distances = torch.stack([(maps.float() - c[:, None, None]).square().sum(1) for c in PALETTE.float()], 1)
    each = one_hot(distances.argmin(1), len(PALETTE)).movedim(-1, 1).float()
    return avg_pool2d(each, maps.shape[-1] // size).argmax(1)


class Segmentation(nn.Module):
    """Photographs (N, 3, H, W) in [-1, 1] to logits of classes (N, 12, H, W): a small U-Net."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()

        def block(before: int, after: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())

        widths = [width, 2 * width, 4 * width, 4 * width]
        self.first = block(3, width)
        self.down = nn.ModuleList(nn.Sequential(block(b, a, 2), block(a, a)) for b, a in pairwise(widths))
        self.up = nn.ModuleList(block(a + b, b) for b, a in pairwise(widths))
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Conv2d(width, len(PALETTE), 1)

    def forward(self, images: Tensor) -> Tensor:
        features = [self.first(images)]
        for layer in self.down:
            features.append(layer(features[-1]))
        x = features.pop()
        for layer in reversed(self.up):
            x = layer(torch.cat([self.larger(x), features.pop()], 1))
        return self.head(x)


def facades(data_dir: Path, size: int, split: str) -> tuple[Tensor, Tensor]:
    """All photographs and all label maps of a split, (N, 3, size, size) in [-1, 1]."""
    data = datamodules.Facades(data_dir=str(data_dir), image_size=size, batch_size=40)
    data.prepare_data()
    found = (data.on_after_batch_transfer(b, 0) for b in data.ordered(data.val_split if split == "val" else split))
    photographs, maps = map(torch.cat, zip(*found, strict=True))
    return photographs, maps


def truth(data_dir: Path, split: str) -> Tensor:
    """Classes of all pixels (N, SIZE, SIZE)."""
    maps = facades(data_dir, FULL, split)[1]
    return torch.cat([classes_of((part + 1) * 127.5) for part in maps.split(40)])


def segmentation_of(data_dir: Path, cache_dir: Path) -> Segmentation:
    """The network of a folder of facades, trained on its training photographs once and kept in a file."""
    data = datamodules.Facades(data_dir=str(data_dir), image_size=SIZE)
    data.prepare_data()
    path = cache_dir / f"segmentation-{data.reference('train')}.pt"
    with isolated_rng(0, torch.device("cpu")):
        network = Segmentation()
        if path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
        else:
            train(network, facades(data_dir, SIZE, "train")[0], truth(data_dir, "train"))
            save(network.state_dict(), path)
    return network.requires_grad_(False).eval()


def train(network: Segmentation, images: Tensor, classes: Tensor, steps: int = STEPS) -> None:
    """Adam, one cycle of the rate; photographs are mirrored, shifted, and brighter or darker at random."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.to(memory_format=torch.channels_last).train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,))
        x, y = images[chosen], classes[chosen]
        if torch.rand(()) < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        down, right = torch.randint(9, (2,)).tolist()
        size = x.shape[-1]
        x, y = (
            pad(t.float(), (4, 4, 4, 4), mode="reflect")[..., down : down + size, right : right + size]
            for t in (x, y[:, None])
        )
        gain, shift = 0.7 + 0.6 * torch.rand(BATCH, 1, 1, 1), 0.4 * torch.rand(BATCH, 1, 1, 1) - 0.2
        with torch.autocast("cpu", torch.bfloat16):
            logits = network((x * gain + shift).contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        cross_entropy(logits.float(), y[:, 0].long()).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def score(network: Segmentation, photographs: Tensor, classes: Tensor) -> dict[str, float]:
    """Per-pixel accuracy, per-class accuracy, class IOU, and information, all in per cent.

    The second and third are over the classes that there are. Information is how much of the classes' entropy is known
    to one who knows what the network has read: 0 for photographs that do not depend on their maps. It does not ask
    whether windows look like windows, only whether they all look alike and unlike walls, which is what a contrastive
    loss teaches.
    """
    found = torch.cat([network(part).argmax(1) for part in photographs.split(40)])
    counts = torch.zeros(len(PALETTE), len(PALETTE))
    counts.index_put_((classes.flatten(), found.flatten()), torch.ones(classes.numel()), accumulate=True)
    there, right = counts.sum(1) > 0, counts.diagonal()
    of_class = (right / counts.sum(1))[there].mean()
    iou = (right / (counts.sum(0) + counts.sum(1) - right))[there].mean()
    both = counts.double() / counts.sum()
    of_truth = entropy(both.sum(1))
    shared = of_truth + entropy(both.sum(0)) - entropy(both)
    values = {
        "per-pixel accuracy": right.sum() / counts.sum(),
        "per-class accuracy": of_class,
        "class IOU": iou,
        "information": shared / of_truth,
    }
    return {name: 100 * value.item() for name, value in values.items()}


def entropy(shares: Tensor) -> Tensor:
    """Entropy of shares that sum to 1."""
    return -torch.xlogy(shares, shares).sum()


def sharpness(images: Tensor) -> float:
    """Gradient energy: the mean squared difference between neighbouring pixels."""
    return sum(images.diff(dim=dim).square().mean().item() for dim in (-1, -2))
