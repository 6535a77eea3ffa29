"""Each rank goes on with what it remembers; another number of ranks deals it out (two real processes, gloo)."""

from pathlib import Path

import pytest
import torch

from command_line import run_ranks

SCRIPT = Path(__file__).with_name("resumed_ranks.py")


def run(out: Path, devices: int, batches: int, *resume: Path) -> tuple[list[dict], str]:
    """What every rank leaves, and what was printed."""
    out.mkdir()
    errors = run_ranks(SCRIPT, [out, devices, batches, *resume], out, devices)
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(devices)], errors


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two ranks that stop with two updates done and two batches waiting."""
    out = tmp_path_factory.mktemp("ranks") / "two"
    return out / "end.ckpt", run(out, 2, 8)[0]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_each_rank_goes_on_with_its_own(two, tmp_path):
    path, before = two
    assert before[0]["steps"] == 2
    assert not same(before[0]["end"], before[1]["end"])
    after, _ = run(tmp_path / "out", 2, 12, path)
    for old, new in zip(before, after, strict=True):
        assert same(old["end"], new["pools"])
        assert torch.equal(old["rng"], new["drawn"])
        assert len(new["waiting"]) == 2
        assert all(torch.equal(a, b) for a, b in zip(old["left"], new["waiting"], strict=True))
    assert not torch.equal(after[0]["waiting"][0], after[1]["waiting"][0])
    assert same(after[0]["weights"], after[1]["weights"])


def test_one_device_goes_on_with_what_two_remember(two, tmp_path):
    path, before = two
    (after,), printed = run(tmp_path / "out", 1, 12, path)
    for domain, images in after["pools"].items():
        first, second = (rank["end"][domain] for rank in before)
        assert torch.equal(images, torch.stack([first[0], second[0], first[1]]))
    assert len(after["waiting"]) == 2
    assert printed.count("of 2 devices and this run has 1") == 1
    assert not any(torch.equal(after["drawn"], rank["rng"]) for rank in before)


def test_two_devices_go_on_with_what_one_remembers(tmp_path):
    (before,), _ = run(tmp_path / "one", 1, 8)
    after, printed = run(tmp_path / "out", 2, 12, tmp_path / "one" / "end.ckpt")
    for rank in after:
        assert same(rank["pools"], before["end"])
        assert len(rank["waiting"]) == 2
        assert rank["steps"] == 4
    assert not torch.equal(after[0]["drawn"], after[1]["drawn"])
    assert same(after[0]["weights"], after[1]["weights"])
    assert printed.count("of 1 devices and this run has 2") == 1
