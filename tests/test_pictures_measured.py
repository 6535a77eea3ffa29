"""How super_resolution.py and restoration.py measure pictures."""

import pytest
import torch


@pytest.fixture(scope="module")
def measure(scripts):
    return scripts("super_resolution")


def waves(across, down, level=0.2, strength=2 / 127.5):
    """A grey image (1, 3, 64, 64) with a wave of some period to the right, and one downwards; 0 is none."""
    place = torch.arange(64)
    right, below = (torch.cos(2 * torch.pi * place / p) if p else torch.ones(64) for p in (across, down))
    return (level + strength * below[:, None] * right).expand(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("across", "down", "energy"), [(2, 0, 4), (0, 2, 4), (4, 0, 2), (4, 4, 1), (2, 4, 2), (16, 0, 0)]
)
def test_a_grid_is_measured_by_its_energy_where_the_original_is_flat(across, down, energy, measure):
    """An amplitude of 2 of 255, squared; half of it for each direction in which there is a cosine of period 4."""
    flat = torch.full((1, 3, 64, 64), 0.2)
    assert measure.grid_energy(waves(across, down), flat).tolist() == pytest.approx([energy] * 49, abs=1e-3)
    assert len(measure.grid_energy(flat, waves(across, down, strength=0.2))) == 0


def test_sharpness_is_the_energy_of_differences(measure):
    assert measure.gradient_energy(waves(2, 0)) == pytest.approx(16, rel=1e-4)  # from 2 above to 2 below
    assert measure.gradient_energy(waves(0, 0)) == 0
