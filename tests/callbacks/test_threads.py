"""As many threads as a process has cores to itself and work to share."""

import os
from types import SimpleNamespace

import pytest
import torch

from callbacks.threads import Threads, cores, quota

V2 = {"proc/self/cgroup": "0::/job/step\n"}
V1 = {"proc/self/cgroup": "5:cpuset:/box\n4:cpu,cpuacct:/box\n1:memory:/other\n"}
SYSTEMS = {
    "no Linux": ({}, float("inf")),
    "no limit": (V2 | {"sys/fs/cgroup/job/step/cpu.max": "max 100000\n"}, float("inf")),
    "half a core": (V2 | {"sys/fs/cgroup/job/step/cpu.max": "50000 100000\n"}, 0.5),
    "a limit above": (
        V2 | {"sys/fs/cgroup/job/cpu.max": "200000 100000\n", "sys/fs/cgroup/job/step/cpu.max": "max 100000\n"},
        2,
    ),
    "in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "first kind": (
        V1
        | {
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
        3,
    ),
    "first kind, linked, in a container": (
        V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        0.5,
    ),
    "first kind, no limit": (
        V1
        | {
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
        float("inf"),
    ),
    "nonsense": (V2 | {"sys/fs/cgroup/job/cpu.max": "a lot\n"}, float("inf")),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_control_groups_grant(system, tmp_path):
    files, granted = SYSTEMS[system]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == granted


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to cores")
def test_cores_are_those_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() <= 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def threads():
    """The number of threads now, put back afterwards."""
    before = torch.get_num_threads()
    yield torch.get_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("granted", "devices", "batch", "size", "kind", "expected"),
    [
        (0.5, 1, 64, 32, "cpu", 1),
        (1.9, 1, 64, 32, "cpu", 1),
        (2, 1, 64, 32, "cpu", 2),
        (64, 1, 64, 32, "cpu", 8),  # no more than there is work for
        (64, 1, 32, 16, "cpu", 1),
        (64, 1, 1, 256, "cpu", 8),
        (64, 4, 128, 64, "cpu", 16),  # shared with the other ranks
        (4, 8, 64, 64, "cpu", 1),
        (16, 1, 32, 16, "cuda", 16),
    ],
)
def test_threads_follow_from_cores_and_work(granted, devices, batch, size, kind, expected, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("callbacks.threads.cores", lambda: granted)
    trainer = SimpleNamespace(
        num_devices=devices,
        datamodule=SimpleNamespace(image_shape=(3, size, size), batch_size=batch),
        strategy=SimpleNamespace(root_device=torch.device(kind)),
    )
    Threads().setup(trainer, None, "fit")
    assert threads() == expected


def test_what_the_user_says_stands(threads, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("callbacks.threads.cores", lambda: 64)
    Threads().setup(None, None, "fit")
    assert threads() == 1
