"""Players, what is remembered beside weights, and where random numbers come from."""

import numpy as np
import pytest
import torch
from conftest import batch_for, fit, images, sgd, small, smallest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from gans import DCGAN, WGANGP, CycleGAN, SRResNet, StyleGAN
from gans.parts.penalties import R1, R2, Judged, gradient_at
from gans.training import GANModule
from gans.training.checkpoints import described, rebuilt


class Remembering(DCGAN):
    def __init__(self, image_shape, state=None, **kwargs):
        super().__init__(image_shape, **kwargs)
        self.shared_state = {"k": torch.zeros(()), "numbers": [1, 2.0], "word": "a"} if state is None else state
        self.seen = []

    def after_update(self, players, logs):
        super().after_update(players, logs)
        self.seen.append((players, {name: value.requires_grad for name, value in logs.items()}))
        if "discriminator" in players and "k" in self.shared_state:
            self.shared_state["k"] = self.shared_state["k"] + 1


def test_the_hook_comes_after_every_update_with_what_was_logged():
    module = small(Remembering, n_critic=2)
    fit(module, max_steps=2)
    assert [players for players, _ in module.seen] == [("discriminator",), ("discriminator",), ("generator",)] * 2
    assert "loss/discriminator" in module.seen[0][1]
    assert not any(value for _, logs in module.seen for value in logs.values())
    assert module.shared_state["k"] == 4


def test_shared_state_is_kept_and_read_back(tmp_path):
    module = small(Remembering)
    trainer = fit(module, max_steps=3)
    module.shared_state["word"] = "b"
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    for loaded in (Remembering.load_to_sample(tmp_path / "a.ckpt"), Remembering.load_to_train(tmp_path / "a.ckpt")):
        assert loaded.shared_state == {"k": torch.tensor(3.0), "numbers": [1, 2.0], "word": "b"}
        assert loaded.images_seen == 12


@pytest.mark.parametrize("value", [np.float32(1), np.zeros(2), {1, 2}, range(3), object()], ids=lambda v: str(type(v)))
def test_what_no_checkpoint_gives_back_is_refused_before_training(value):
    with pytest.raises(MisconfigurationException, match=r"Remembering\.shared_state keeps k of .*tensors"):
        fit(small(Remembering, state={"k": value}), max_steps=1)


DAMAGE = {
    "images_seen": [-1, "a", None, True],
    "critic_updates": [-1, "a"],
    "critic_updates_in_all": [-1, "a"],
    "critic_done": [None, "a"],
    "seed": ["zero", -3, 1.5],
    "state": ["abc", []],
    "ranks": [None, [], ["x"], [{"memory": {"a": "x"}}], [{"memory": {"a": torch.zeros(())}}], [{"memory": []}]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in DAMAGE.items() for value in values])
def test_damaged_parts_of_training_are_named(name, value, tmp_path):
    module = small(Remembering)
    fit(module, max_steps=1).save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    checkpoint["gan"][name] = value
    torch.save(checkpoint, tmp_path / "a.ckpt")
    trainer = Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(MisconfigurationException, match=rf"The checkpoint's {name} is damaged"):
        trainer.fit(small(Remembering), DataLoader(images(8), 4), ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_state_of_another_type_is_named(tmp_path):
    fit(small(Remembering), max_steps=1).save_checkpoint(tmp_path / "a.ckpt")
    for state in ({"k": 1.0}, {"k": torch.zeros(2)}, {"word": 3}):
        with pytest.raises(MisconfigurationException, match=r"The checkpoint has (k|word)=.* Remembering keeps a"):
            smallest(Remembering)._restore({"state": state})


# A paper's own mistakes


def test_what_a_loss_must_return_and_what_updates_name():
    class Alone(DCGAN):
        def generator_loss(self, batch):
            return super().generator_loss(batch)[0]

    class Misspelled(DCGAN):
        updates = {"discriminator_loss": ("discriminator",), "generator_los": ("generator",)}

    class Untrained(DCGAN):
        updates = {"discriminator_loss": ("discriminator",), "generator_loss": ("generator", "heads")}

    class Unoptimised(Untrained):
        def __init__(self, image_shape, **kwargs):
            super().__init__(image_shape, **kwargs)
            self.heads = torch.nn.Linear(1, 1)

    said = {
        Alone: r"generator_loss must return two things: the loss, and a dictionary",
        Misspelled: r"Misspelled has no generator_los,",
        Untrained: r"Untrained has no heads,",
        Unoptimised: r"Unoptimised trains heads: its constructor must take heads_optimizer",
    }
    for cls, sentence in said.items():
        with pytest.raises(MisconfigurationException, match=sentence):
            fit(small(cls), max_steps=1)


def test_srresnet_has_no_discriminator_and_cyclegan_no_loss():
    assert smallest(SRResNet).players == ["generator"]
    assert not hasattr(smallest(SRResNet), "discriminator_loss")
    for cls, option in ((SRResNet, "n_critic"), (SRResNet, "loss"), (CycleGAN, "loss")):
        with pytest.raises(TypeError, match=option):
            smallest(cls, **{option: 1})


# Random numbers


class Drawing(DCGAN):
    def __init__(self, image_shape, more=0, **kwargs):
        super().__init__(image_shape, **kwargs)
        self.drawn, self.more = [], more

    def begin_update(self, batches):
        if not self.images_seen > 4:
            torch.rand(self.more)  # what the first step draws changes nothing in the second

    def noise(self, n):
        self.drawn.append(super().noise(n))
        return self.drawn[-1]


def test_random_numbers_follow_from_the_place_and_nothing_before():
    runs = []
    for more in (0, 5):
        torch.manual_seed(more)  # the user's seed, which is given to Lightning, is the same
        runs.append(small(Drawing, more=more))
        fit(runs[-1], images(8), max_steps=2, batch_size=4)
    first, second = (run.drawn for run in runs)
    assert len(first) == 4
    assert not torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[2:], second[2:], strict=True))
    places = []
    for seen in (0, 4, 0):
        runs[0].images_seen = seen
        runs[0].seed_by_place()
        places.append(torch.rand(3))
    assert torch.equal(places[0], places[2])
    assert not torch.equal(places[0], places[1])


# Several penalties


@pytest.mark.parametrize("cls", [DCGAN, WGANGP, StyleGAN])
def test_two_penalties_are_added_and_reuse_the_pass_of_the_loss(cls):
    """In float64, beside passes of their own."""
    module = small(cls, penalty=[R1(2.0), R2(3.0)], num_classes=0).double().eval()
    x = images(4).double()
    fake = images(4, seed=1).double()
    real, generated = module.compare((x,), (fake,))
    loss, logs = module.tell_apart(real, generated)
    of_real, of_fake = (gradient_at(lambda i: module.judge(i).outputs, i).square().sum(1).mean() for i in (x, fake))
    torch.testing.assert_close(logs["loss/penalty"], of_real + 1.5 * of_fake)
    torch.testing.assert_close(loss - logs["loss/penalty"], logs["loss/discriminator"])
    asked = []
    module.discriminator.register_forward_pre_hook(lambda *_: asked.append(1))
    module.tell_apart(*module.compare((x,), (fake,)))
    assert len(asked) == 2


def test_generated_images_are_judged_with_their_own_classes():
    def judge(factor):
        return lambda i: (factor * i).flatten(1).sum(1)

    real, fake = (Judged(images(3).double(), judge(factor)) for factor in (1.0, 2.0))
    torch.testing.assert_close(R2(2.0)(real, fake), torch.tensor(4.0 * 256).double())
    torch.testing.assert_close(R1(2.0)(real, fake), torch.tensor(256.0).double())


def test_a_list_of_penalties_is_described_and_built_again():
    again = rebuilt("penalty", described([R1(2.0), R2(3.0)]))
    assert [(type(p), p.weight) for p in again] == [(R1, 2.0), (R2, 3.0)]
    older = rebuilt("penalty", {"class_path": "gans.parts.penalties.R1", "init_args": {"weight": 10.0}})
    assert (older.weight, older.every) == (10.0, 1)  # of a checkpoint from before there were lazy ones
    with pytest.raises(MisconfigurationException, match="cannot be built"):
        rebuilt("penalty", [{"class_path": "gans.losses.Hinge", "init_args": {}}])


def test_only_the_named_players_are_trained():
    module = small(DCGAN, generator_optimizer=sgd(1.0), discriminator_optimizer=sgd(1.0))
    assert isinstance(module, GANModule)
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(images(4), 4))
    before = [p.clone() for p in module.parameters()]
    with torch.random.fork_rng([]):
        module.update(("generator",), module.generator_loss, [batch_for(module, 4)])
    moved = {
        name.split(".")[0]
        for (name, p), old in zip(module.named_parameters(), before, strict=True)
        if not torch.equal(p, old)
    }
    assert moved == {"generator"}
    assert trainer.global_step == 1
