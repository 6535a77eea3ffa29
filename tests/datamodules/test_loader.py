"""The order of batches: fresh every epoch, the same for any number of ranks and either source, and resumable."""

import random

import numpy as np
import pytest
import torch

from datamodules.images.loader import Loader, UnpairedLoader

N = 23
IMAGES = torch.arange(N, dtype=torch.uint8).view(N, 1, 1, 1).expand(N, 1, 2, 2).contiguous()
LABELS = torch.arange(N) * 2


def loader(batch_size=4, shuffle=True, images=IMAGES, labels=LABELS, **kwargs):
    return Loader(images, labels, batch_size, shuffle, **kwargs)


def numbers(batches):
    """The image numbers of every batch; each image holds its own."""
    return [batch.image[:, 0, 0, 0].tolist() for batch in batches]


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    return tmp_path / "images.npy"


@pytest.mark.parametrize("shuffle", [True, False], ids=["training", "evaluation"])
def test_batches_hold_images_and_their_labels(shuffle):
    for image, label in loader(shuffle=shuffle):
        assert image.dtype == torch.uint8
        assert image.shape[1:] == (1, 2, 2)
        assert label.dtype == torch.int64
        assert torch.equal(label, image[:, 0, 0, 0].long() * 2)


def test_labels_may_be_missing():
    assert all(batch.label is None for batch in loader(labels=None))


def test_training_shuffles_every_epoch_anew_and_repeatably():
    a, b = loader(seed=1), loader(seed=1)
    first, second = numbers(a), numbers(a)
    assert len(first) == len(a) == N // 4
    assert all(len(batch) == 4 for batch in first)  # an incomplete batch is dropped
    seen = sum(first, [])
    assert len(set(seen)) == len(seen)
    assert sorted(seen) != seen
    assert first != second
    assert [numbers(b), numbers(b)] == [first, second]
    assert numbers(loader(seed=2)) != first


def test_evaluation_goes_through_all_images_in_order_every_time():
    evaluation = loader(shuffle=False)
    expected = [list(part) for part in np.array_split(range(N), range(4, N, 4))]
    assert numbers(evaluation) == numbers(evaluation) == expected
    assert len(evaluation) == len(expected)
    next(iter(evaluation))  # left early
    assert numbers(evaluation) == expected
    assert [numbers([a]) == numbers([b]) for a, b in zip(evaluation, evaluation, strict=True)] == [True] * 6


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_join_to_the_batches_of_one_process(world_size):
    one = loader(batch_size=2 * world_size)
    ranks = [loader(batch_size=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(one)}
    for _ in range(2):
        joined = [sum(parts, []) for parts in zip(*map(numbers, ranks), strict=True)]
        assert joined == numbers(one)


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_evaluation_deals_batches_to_ranks_in_turn(world_size):
    batches = numbers(loader(shuffle=False))
    for rank in range(world_size):
        part = loader(shuffle=False, rank=rank, world_size=world_size)
        assert numbers(part) == batches[rank::world_size]
        assert len(part) == len(batches[rank::world_size])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
def test_streaming_gives_the_same_batches(file, num_workers, shuffle, labels):
    options = {"shuffle": shuffle, "labels": labels, "seed": 3, "rank": 1, "world_size": 2}
    resident, streamed = loader(**options), loader(images=file, num_workers=num_workers, **options)
    for _ in range(2):
        for a, b in zip(resident, streamed, strict=True):
            assert torch.equal(a.image, b.image)
            assert (a.label is None and b.label is None) or torch.equal(a.label, b.label)


@pytest.mark.parametrize("stop", range(0, 13))
@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
def test_a_resumed_loader_goes_on_where_the_state_was_taken(file, stop, streamed):
    """The state after any number of batches, the ends of the epochs (5 and 10) among them."""

    def stream(loader, count):
        batches = []
        while len(batches) < count:
            for batch in loader:
                batches.append(batch)
                if len(batches) == count:
                    break
        return numbers(batches)

    images = file if streamed else IMAGES
    whole = stream(loader(images=images), 17)
    first, second = loader(images=images), loader(images=images)
    assert stream(first, stop) == whole[:stop]
    state = first.state_dict()
    assert all(type(value) is int for value in state.values())
    second.load_state_dict(state)
    assert stream(second, 17 - stop) == whole[stop:]


def test_the_state_counts_what_was_handed_out_not_what_workers_read_ahead(file):
    streamed = loader(images=file, num_workers=2)
    batches = iter(streamed)
    next(batches)
    assert streamed.state_dict() == {"epoch": 0, "images": 4}


def test_asking_for_an_iterator_twice_changes_nothing():
    once, twice = loader(), loader()
    for _ in range(3):
        iter(twice)
        state = twice.state_dict()
        iter(twice)
        assert twice.state_dict() == state
        assert numbers(twice) == numbers(once)


def test_a_state_holds_for_other_batch_sizes_and_numbers_of_ranks():
    """16 images are done: the same order goes on at its seventeenth image."""
    first = loader(batch_size=8)
    rest = iter(first)
    done = numbers([next(rest), next(rest)])
    order = sum(numbers(loader(batch_size=1)), [])
    assert sum(done, []) == order[:16]
    second = loader(batch_size=2, rank=1, world_size=2)
    second.load_state_dict(first.state_dict())
    assert numbers(second) == [order[18:20]]


def test_a_resumed_loader_keeps_its_own_seed():
    """At the same epoch and place; older states name the seed that they were taken with."""
    expected = loader(seed=7)
    list(expected)
    second = loader(seed=7)
    second.load_state_dict({"seed": 3, "epoch": 1, "images": 8})
    assert numbers(second) == numbers(expected)[2:]
    assert numbers(second) == numbers(expected)
    assert second.seed == 7


def test_no_global_generator_is_drawn_from(file):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = states()
    for images, workers in ((IMAGES, 0), (file, 0), (file, 1)):
        for shuffle in (True, False):
            list(loader(images=images, num_workers=workers, shuffle=shuffle))
    assert states() == before


def test_the_same_batches_again_and_again():
    batches = loader()
    batches.repeated = 2
    first, second = numbers(loader())[:2]
    for _ in range(3):
        epoch = iter(batches)
        assert numbers([next(epoch), next(epoch)]) == [first, second]
    again = loader()
    again.repeated = 2
    again.load_state_dict({"epoch": 0, "images": 4})  # left in the middle
    assert numbers([next(iter(again))]) == [second]
    assert numbers([next(iter(again))]) == [first]


def test_the_same_unpaired_batches_again_and_again():
    batches = UnpairedLoader(loader(seed=1), loader(images=IMAGES[:8], labels=LABELS[:8], seed=2))  # of 5 and of 2
    batches.repeated = 3

    def epoch():
        parts = zip(iter(batches), range(3), strict=False)
        return [(batch.a[:, 0, 0, 0].tolist(), batch.b[:, 0, 0, 0].tolist()) for batch, _ in parts]

    first = epoch()
    assert len({str(pair) for pair in first}) == 3
    assert [epoch(), epoch()] == [first] * 2


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
def test_an_evaluation_can_be_restricted_to_batches_of_ones_own(file, streamed, world_size):
    batches = [torch.tensor(part) for part in ([3, 3, 7], [0], [19, 5, 6, 7, 8])]
    for rank in range(world_size):
        some = loader(images=file if streamed else IMAGES, shuffle=False, rank=rank, world_size=world_size)
        every = numbers(some)
        some.restrict(batches)
        assert len(some) == len(batches[rank::world_size])
        assert numbers(some) == [part.tolist() for part in batches[rank::world_size]]
        some.restrict(None)
        assert numbers(some) == every
        assert len(some) == len(every)
