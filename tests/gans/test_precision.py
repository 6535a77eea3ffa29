"""Half precision is for machines that have instructions for it."""

import pytest
import torch

from gans.parts.precision import autocast_cache, full_precision, native_precision


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """As no one has said what machine this is."""
    monkeypatch.delenv("GAN_LAB_BFLOAT16", raising=False)


@pytest.mark.parametrize(("told", "precision"), [("0", "32-true"), ("1", "bf16-mixed")])
def test_either_kind_of_machine_can_play_the_other(monkeypatch, told, precision):
    monkeypatch.setenv("GAN_LAB_BFLOAT16", told)
    assert native_precision() == native_precision("cpu") == precision


@pytest.mark.parametrize(
    ("instructions", "precision"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
        ({"neon": True}, "32-true"),
    ],
)
def test_a_processor_computes_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, instructions, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert native_precision() == native_precision("cpu") == precision
    assert native_precision("mps") == "32-true"


@pytest.mark.parametrize("ampere", [False, True])
def test_a_gpu_is_asked_where_there_is_one_unless_the_cpu_is_wanted(monkeypatch, ampere):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # Volta and Turing emulate bfloat16, which must not count.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or ampere)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not ampere})
    gpu, cpu = ("bf16-mixed", "32-true")[:: 1 if ampere else -1]
    assert [native_precision(name) for name in ("auto", "gpu", "cuda")] == [gpu] * 3
    assert native_precision("cpu") == cpu


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_full_precision_widens_half_precision_only(half):
    assert full_precision(torch.ones(1, dtype=half)).dtype == torch.float32
    assert full_precision(torch.ones(1)).dtype == torch.float32
    assert full_precision(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


def test_the_cache_is_on_inside_only():
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with autocast_cache():
            assert torch.is_autocast_cache_enabled()
        assert not torch.is_autocast_cache_enabled()
    finally:
        torch.set_autocast_cache_enabled(before)
