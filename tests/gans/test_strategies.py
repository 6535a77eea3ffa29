"""Data-parallel training in two real processes (gloo), beside one process on the joined batch."""

from pathlib import Path

import pytest
import torch

import gans
from command_line import run_ranks
from gans import DCGAN

SCRIPT = Path(__file__).with_name("two_ranks.py")


def run(out: Path, devices: int) -> None:
    out.mkdir()
    run_ranks(SCRIPT, [out, devices], out, devices)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks") / "two"
    run(out, 2)
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks") / "one"
    run(out, 1)
    return out


def load(folder, name, rank):
    return torch.load(folder / f"{name}{rank}.pt", weights_only=True)


@pytest.mark.parametrize("name", ["linear", "switched", "dcgan", *gans.__all__])
def test_ranks_end_with_identical_weights(two, name):
    first, second = (load(two, name, rank)["weights"] for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_ranks_equal_one_process_on_the_joined_batch(one, two):
    """With n_critic 2 and clipping, over 5 generator updates.

    In float64, where the two differ only in the order of sums: 1e-12 leaves room for that and for nothing else. (In
    float32 the same comparison holds to about 1e-6.)
    """
    joined, parts = load(one, "linear", 0), load(two, "linear", 0)
    assert joined["steps"] == parts["steps"] == 5
    for key, value in joined["weights"].items():
        torch.testing.assert_close(parts["weights"][key], value, rtol=1e-12, atol=1e-12)


def test_ranks_agree_on_when_the_critic_is_trained_enough(two):
    """By the mean of their losses: the second rank's alone never is below the threshold."""
    for rank in (0, 1):
        assert load(two, "switched", rank)["steps"] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_every_rank_has_its_own_data_and_noise(two):
    first, second = (load(two, "dcgan", rank) for rank in (0, 1))
    for kind in ("images", "noise"):
        assert len(first[kind]) == len(second[kind]) > 0
        assert not any(torch.equal(a, b) for a in first[kind] for b in second[kind])


def test_running_statistics_are_settled_when_saving(two):
    first, second = (load(two, "dcgan", rank) for rank in (0, 1))
    drifting = [key for key, value in first["drifted"].items() if not torch.equal(value, second["drifted"][key])]
    assert drifting  # each rank's batch norm saw its own batches
    for key, value in first["settled"].items():
        assert torch.equal(value, second["settled"][key])
        if key in drifting:
            torch.testing.assert_close(value, (first["drifted"][key] + second["drifted"][key]) / 2)


def test_a_checkpoint_of_two_ranks_loads_on_one_device(two):
    path = two / "dcgan2.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {
        "generator",
        "discriminator",
        "averaged_generator",
    }
    assert len(checkpoint["gan"]["ranks"]) == 2  # every rank's random state, for an exact resume
    assert DCGAN.load_to_sample(path).sample(2).shape == (2, 1, 16, 16)
