"""What is known of the data of a trained model, without the data: enough to draw samples and to translate a folder."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.module import ImageDataModule


class Known(ImageDataModule):
    """The shape and names of data that is not here; ``predict`` needs no more of it.

    Args:
        image_shape: Channels, height and width of the images.
        num_classes: How many classes they have.
        domains: Names of their domains or attributes.
        scale: How many times larger than its source a target is.
        predict_dir: Folder of images, of any size, that ``predict`` translates, or a single one.
        direction: "AtoB" or "BtoA", of the domains of the data that the model was trained on: what ``predict`` makes of
            what. By default as in training; CycleGAN and DiscoGAN know both.
        background: Colour behind what is transparent in images.
        skip_broken: Leave out images that cannot be read, and say which.
    """

    gives = None
    image_shape: Any = None
    num_classes: Any = 0
    domains: Any = ()

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int = 0,
        domains: Sequence[str] = (),
        scale: int = 1,
        predict_dir: str | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        background: str = "white",
        skip_broken: bool = False,
    ) -> None:
        super().__init__(predict_dir=predict_dir, background=background, skip_broken=skip_broken)
        self.direction = direction
        self.image_shape, self.num_classes, self.domains = image_shape, num_classes, tuple(domains)
        self.channels = image_shape[0]
        self.scale = scale

    def items(self, split: str) -> tuple[list[Any], None]:
        """Raises MisconfigurationException: there are no images."""
        raise MisconfigurationException("there is no data here: name it with --data or --config")
