"""What is computed in half precision, and on which machines."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def native_precision(accelerator: Any = "auto") -> str:
    """The trainer's fastest precision that needs no scaling of losses: "bf16-mixed" or "32-true".

    Without instructions for bfloat16 a processor emulates it, which makes convolutions up to a hundred times slower.
    The environment variable GAN_LAB_BFLOAT16, 1 or 0, answers for the machine, so that tests run as on either kind.

    Args:
        accelerator: As given to the trainer.
    """
    if (told := os.environ.get("GAN_LAB_BFLOAT16")) in ("0", "1"):
        native = told == "1"
    elif torch.cuda.is_available() and accelerator in ("auto", "cuda", "gpu"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities()
        native = accelerator in ("auto", "cpu") and any(processor.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if native else "32-true"


def full_precision(scores: Tensor) -> Tensor:
    """Half-precision outputs of autocast as float32, in which losses are computed; others as they are."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def uncompiled() -> Any:
    """A context in which compiled networks run uncompiled: in evaluation, and where they are differentiated twice."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def autocast_cache() -> Iterator[None]:
    """Inside, mixed precision converts a weight once for all forward passes (two of the discriminator, say).

    Lightning switches this off, because its autocast goes on while weights are updated.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(True)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
        torch.clear_autocast_cache()
