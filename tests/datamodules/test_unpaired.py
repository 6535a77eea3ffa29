"""Images of two domains without pairs, in CycleGAN's layout: A has 11 images, B 6."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from watch import QUIET, Watch, watch

from datamodules import UnpairedFolder

COUNTS = {"A": 11, "B": 6}


def write(root, split, counts):
    """Image n of a domain has the colour (n, 0 or 200, 0)."""
    for domain, count in counts.items():
        folder = root / f"{split}{domain}"
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 200 * (domain == "B"), 0)).save(folder / f"{number:02}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", COUNTS)
    return tmp_path


def unpaired(folder, **kwargs):
    return UnpairedFolder(**{"data_dir": str(folder), "image_size": 8, "batch_size": 2} | kwargs)


def numbers(batches):
    """The numbers of the images of both domains, and the domains' names."""
    found = []
    for images in map(torch.cat, zip(*batches, strict=True)):
        red, green = (images if images.dtype == torch.uint8 else (images + 1) * 127.5).round().int()[:, :2, 0, 0].T
        found.append(red.tolist())
        assert len(set(green.tolist())) == 1
        found.append("B" if green[0] else "A")
    return found


def test_an_epoch_is_as_long_as_the_longer_domain(folder):
    a, first, b, second = numbers(watch(unpaired(folder)))
    assert (first, second) == ("A", "B")
    assert len(a) == len(b) == 10  # five whole batches of the 11
    assert len(set(a)) == 10
    assert set(b) == set(range(6))


def test_the_shorter_domain_begins_again_in_a_new_order_wherever_an_epoch_ends(folder):
    a, _, b, _ = numbers(watch(unpaired(folder), max_epochs=6))
    assert len(a) == len(b) == 60
    rounds = [b[i : i + 6] for i in range(0, 60, 6)]  # three batches each, of epochs of five
    assert all(sorted(part) == list(range(6)) for part in rounds)
    assert len(set(map(tuple, rounds))) > 7
    epochs = [a[i : i + 10] for i in range(0, 60, 10)]
    assert all(len(set(part)) == 10 for part in epochs)
    assert len(set(map(tuple, epochs))) == 6


def test_two_domains_of_one_length_have_orders_of_their_own(tmp_path):
    write(tmp_path, "train", {"A": 12, "B": 12})
    a, _, b, _ = numbers(watch(unpaired(tmp_path)))
    assert sorted(a) == sorted(b) == list(range(12))
    assert a != b


@pytest.mark.parametrize(("direction", "counts"), [("AtoB", COUNTS), ("BtoA", COUNTS), ("BtoA", {"A": 4, "B": 9})])
def test_the_direction_says_which_is_the_source(tmp_path, direction, counts):
    write(tmp_path, "train", counts)
    data = unpaired(tmp_path, direction=direction)
    a, first, b, second = numbers(watch(data))
    assert first + "to" + second == direction
    assert len(set(a)) == counts[first] // 2 * 2
    assert len(set(b)) == counts[second] // 2 * 2
    other = unpaired(tmp_path, direction={"AtoB": "BtoA", "BtoA": "AtoB"}[direction])
    assert data.reference("train") != other.reference("train")  # scores compare with the target's images


@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
@pytest.mark.parametrize("stop", [2, 5, 8, 9])
def test_a_resumed_run_sees_the_batches_that_were_left(folder, streamed, stop):
    """In the middle and at the end of an epoch of five batches, and of the shorter domain's three."""
    options = {"resident_bytes": 0, "num_workers": 0} if streamed else {}
    whole = watch(unpaired(folder, **options), max_epochs=-1, max_steps=17)
    first = Trainer(**QUIET | {"max_epochs": -1, "max_steps": stop})
    first.fit(Watch(), unpaired(folder, **options))
    first.save_checkpoint(folder / "a.ckpt")
    module = Watch()
    second = Trainer(**QUIET | {"max_epochs": -1, "max_steps": 17})
    second.fit(module, unpaired(folder, **options), ckpt_path=folder / "a.ckpt", weights_only=True)
    assert numbers(module.seen) == numbers(whole[stop:])


def test_a_resumed_run_keeps_its_own_seed(folder):
    """In both domains, at the same place."""
    whole = watch(unpaired(folder, seed=5), max_epochs=-1, max_steps=9)
    first = Trainer(**QUIET | {"max_epochs": -1, "max_steps": 2})
    first.fit(Watch(), unpaired(folder))
    first.save_checkpoint(folder / "a.ckpt")
    module = Watch()
    second = Trainer(**QUIET | {"max_epochs": -1, "max_steps": 9})
    second.fit(module, unpaired(folder, seed=5), ckpt_path=folder / "a.ckpt", weights_only=True)
    assert numbers(module.seen) == numbers(whole[2:])


def test_the_state_holds_where_both_domains_are(folder):
    data = unpaired(folder)
    data.prepare_data()
    batches = iter(data.train_dataloader())
    for _ in range(4):
        next(batches)
    state = data.state_dict()
    assert state["images"] == state["a"]["images"] == 8
    assert (state["a"]["epoch"], state["b"]["epoch"]) == (0, 1)
    assert state["b"]["images"] == 2  # the first batch of its second time


def test_streaming_gives_the_same_batches(folder):
    torch.manual_seed(1)
    resident = watch(unpaired(folder, horizontal_flip=True), max_epochs=3)
    torch.manual_seed(1)
    streamed = watch(unpaired(folder, horizontal_flip=True, resident_bytes=0, num_workers=1), max_epochs=3)
    assert len(resident) == 15
    assert numbers(resident) == numbers(streamed)


def test_both_domains_are_mirrored_each_on_its_own(tmp_path):
    """Every image is black on the left and white on the right."""
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        picture = Image.new("RGB", (8, 8))
        picture.paste((255, 255, 255), (4, 0, 8, 8))
        for number in range(40):
            picture.save(tmp_path / f"train{domain}/{number}.png")
    ((a, b),) = watch(unpaired(tmp_path, batch_size=40, horizontal_flip=True))
    mirrored = [(images[:, 0, 0, 0] == 1).tolist() for images in (a, b)]
    assert all(10 < sum(part) < 30 for part in mirrored)
    assert mirrored[0] != mirrored[1]


@pytest.mark.parametrize("tested", [True, False], ids=["test", "train"])
@pytest.mark.parametrize("counts", [{"A": 5, "B": 3}, {"A": 3, "B": 5}])
def test_evaluation_is_in_order_and_repeats_the_shorter_domain(tmp_path, tested, counts):
    write(tmp_path, "train", {"A": 2, "B": 2} if tested else counts)
    if tested:
        write(tmp_path, "test", counts)
    data = unpaired(tmp_path)
    assert data.val_split == ("test" if tested else "train")
    data.prepare_data()
    loader = data.val_dataloader()
    expected = [[number % counts[domain] for number in range(5)] for domain in "AB"]
    for _ in range(2):  # every time
        a, _, b, _ = numbers(loader)
        assert [a, b] == expected
    next(iter(loader))  # left early
    assert numbers(loader)[0] == expected[0]
    assert len(loader) == 3
    assert (loader.total, loader.distinct, loader.batch_size) == (5, counts["B"], 2)


class Rank:
    """Stands in for a trainer of two ranks."""

    world_size, strategy = 2, type("Strategy", (), {"root_device": torch.device("cpu")})
    state = type("State", (), {"fn": "fit"})

    def __init__(self, rank):
        self.global_rank = rank


def of_rank(folder, rank, **kwargs):
    data = unpaired(folder, **kwargs)
    data.trainer = Rank(rank)
    return data


def test_two_ranks_see_what_one_process_with_the_joined_batch_sees(tmp_path):
    write(tmp_path, "train", {"A": 23, "B": 9})
    one = unpaired(tmp_path, batch_size=4)
    one.prepare_data()
    joined = one.train_dataloader()
    ranks = [of_rank(tmp_path, rank).train_dataloader() for rank in range(2)]
    for _ in range(3):  # epochs of 5 batches, of which B has 2
        batches = [list(loader) for loader in (joined, *ranks)]
        assert [len(part) for part in batches] == [5, 5, 5]
        for whole, *parts in zip(*batches, strict=True):
            assert torch.equal(torch.cat([part.a for part in parts]), whole.a)
            assert torch.equal(torch.cat([part.b for part in parts]), whole.b)


def test_two_ranks_evaluate_whole_batches_in_turn(folder):
    one = unpaired(folder)
    one.prepare_data()
    batches = list(one.val_dataloader())
    for rank in range(2):
        mine = list(of_rank(folder, rank).val_dataloader())
        assert [numbers([batch]) for batch in mine] == [numbers([batch]) for batch in batches[rank::2]]
        assert len(list(of_rank(folder, rank).ordered("train"))) == len(batches) == 6  # everything on every rank


@pytest.mark.parametrize("form", ["{}A {}B", "{}/a {}/b", "{}_A {}_B"])
@pytest.mark.parametrize(("train", "test"), [("Train", "Val"), ("training", "test")])
def test_splits_go_by_their_usual_names_and_broken_images_are_left_out(tmp_path, form, train, test):
    write(tmp_path, "x", {"A": 3, "B": 2})
    write(tmp_path, "y", {"A": 2, "B": 4})
    for split, name in (("x", train), ("y", test)):
        for domain, place in zip("AB", form.format(name, name).split(), strict=True):
            (tmp_path / place).parent.mkdir(exist_ok=True)
            (tmp_path / f"{split}{domain}").rename(tmp_path / place)
    (tmp_path / form.format(train, train).split()[0] / "01.png").write_bytes(b"")
    data = unpaired(tmp_path, skip_broken=True)
    data.prepare_data()
    assert data.val_split == "test"
    assert [data.count(f"{split}_{domain}") for split in ("train", "test") for domain in "ab"] == [2, 2, 2, 4]
    assert set(numbers(data.ordered("train"))[0]) == {0, 2}


def test_grey_images(folder):
    data = unpaired(folder, channels=1)
    data.prepare_data()
    assert data.image_shape == (1, 8, 8)
    assert next(iter(data.val_dataloader())).b[:, :, 0, 0].tolist() == [[117], [118]]  # luminance of 200 in green


def test_mistakes_are_named_in_a_sentence(tmp_path):
    def check(sentence, **kwargs):
        with pytest.raises(MisconfigurationException, match=sentence) as error:
            watch(unpaired(tmp_path, **kwargs))
        assert "\n" not in str(error.value)

    check(r"trainA is not a folder: --data\.data_dir must hold trainA and trainB, a domain each$")
    write(tmp_path, "train", {"A": 3})
    check(r"trainB is not a folder")
    (tmp_path / "trainB").mkdir()
    check(r"trainB holds no images .*--data\.data_dir")
    Image.new("RGB", (8, 8)).save(tmp_path / "trainB/1.png")
    check(r"--data\.batch_size=2 is more than the 1 training images")
    (tmp_path / "trainB/2.png").write_bytes(b"no picture")
    check(r"^Broken image .*trainB/2\.png")
