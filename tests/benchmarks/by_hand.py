"""Every GAN's training as one would write it by hand in plain PyTorch, on the networks of ``gans``.

This is what ``step.py`` times ``Trainer.fit`` against, and what ``tests/test_by_hand.py`` compares its results with.
Only the networks, the optimizers' settings and the adversarial loss's formula are taken from a module.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss, normalize, one_hot

from gans import (
    ACGAN,
    CGAN,
    CUT,
    DCGAN,
    GAN,
    LSGAN,
    SAGAN,
    SRGAN,
    WGAN,
    WGANGP,
    ConvolutionalCGAN,
    CycleGAN,
    DiscoGAN,
    InfoGAN,
    Pix2Pix,
    RealnessGAN,
    SRResNet,
    StarGAN,
    StyleDCGAN,
    StyleGAN,
)
from gans.parts.penalties import R1
from gans.training.module import GANModule


class Loop:
    """Noise to images.

    Args:
        module: The networks are its own: they are trained.
        device: "cpu" or "cuda".
        half: Train under bfloat16 autocast.
    """

    discriminator_every = 1  # updates of the generator

    def __init__(self, module: GANModule, device: str, half: bool = False) -> None:
        self.module, self.device, self.half = module, device, half
        self.generator, self.discriminator = module.generator.to(device), torch.nn.Identity()
        self.n_critic, self.optimizer_d = getattr(module, "n_critic", 1), None
        if "discriminator" in module.players:
            self.discriminator = module.discriminator.to(device)
            self.optimizer_d = module.discriminator_optimizer(self.discriminator.parameters())
        self.optimizer_g = module.generator_optimizer(self.generator.parameters())
        self.batches, self.updates, self.judged = 0, 0, 0  # the generator's updates and the discriminator's

    def step(self, *batch: Tensor) -> None:
        """One batch."""
        self.batches += 1
        own = self.module.own_batch
        last = self.batches % (self.n_critic + own) == 0
        with torch.set_grad_enabled(last), self.autocast():
            fake = self.fakes(*batch)
        if self.optimizer_d is not None and not (own and last) and self.updates % self.discriminator_every == 0:
            with self.autocast():
                loss = self.discriminator_loss(fake, *batch)
            self.optimizer_d.zero_grad()
            loss.backward()
            self.optimizer_d.step()
            self.judged += 1
            if clip := getattr(self.module, "weight_clip", None):
                with torch.no_grad():
                    for p in self.discriminator.parameters():
                        p.clamp_(-clip, clip)
        if last:
            self.discriminator.requires_grad_(False)
            with self.autocast():
                loss = self.generator_loss(fake, *batch)
            self.optimizer_g.zero_grad()
            loss.backward()
            self.optimizer_g.step()
            self.discriminator.requires_grad_(True)
            self.updates += 1

    def autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.half)

    # Noise to images

    def fakes(self, *batch: Tensor) -> Any:
        """What the generator is asked for once for both steps: for noise nothing, since every step draws its own."""

    def classes(self, n: int) -> tuple[Tensor, ...]:
        return ()

    def judge(self, images: Tensor, *classes: Tensor) -> Tensor:
        return self.discriminator(images, *classes).float()

    def draw(self, n: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        classes = self.classes(n)
        return self.generator(torch.randn(n, self.module.latent_dim, device=self.device), *classes), classes

    def discriminator_loss(self, _: Any, real: Tensor, *label: Tensor) -> Tensor:
        label = label if self.module.num_classes else ()
        with torch.no_grad():
            fake, classes = self.draw(len(real))
        r1 = self.penalty_is_due() and isinstance(self.module.penalty, R1)
        r1 = r1 and not (self.half or self.module.compiles)
        real_score = self.judge(real.requires_grad_() if r1 else real, *label)
        loss = self.module.loss.discriminator(real_score, self.judge(fake, *classes))
        if r1:  # on the pass that the loss has made
            (gradient,) = torch.autograd.grad(real_score.sum(), real, create_graph=True)
            return loss + self.penalty_weight(real) / 2 * gradient.flatten(1).square().sum(1).mean()
        return loss + self.penalty(real, fake, *label)

    def penalty_is_due(self) -> bool:
        return self.module.penalty is not None and (self.judged + 1) % self.module.penalty.every == 0

    def penalty_weight(self, real: Tensor) -> float:
        penalty = self.module.penalty
        return penalty.every * (penalty.weight_at(real) if isinstance(penalty, R1) else penalty.weight)

    def penalty(self, real: Tensor, fake: Tensor, *label: Tensor) -> Tensor | float:
        if not self.penalty_is_due():
            return 0.0
        weight, r1 = self.penalty_weight(real), isinstance(self.module.penalty, R1)
        share = 0 if r1 else torch.rand(len(real), 1, 1, 1, device=self.device)
        images = (real + share * (fake.float() - real)).requires_grad_()
        # In full precision, and uncompiled, since torch.compile cannot differentiate twice.
        with torch.autocast(self.device, enabled=False), torch.compiler.set_stance("force_eager"):
            scores = self.judge(images, *label)
            (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        gradient = gradient.flatten(1)
        if r1:
            return weight / 2 * gradient.square().sum(1).mean()
        return weight * (gradient.norm(dim=1) - 1).square().mean()

    def generator_loss(self, _: Any, real: Tensor, *label: Tensor) -> Tensor:
        fake, classes = self.draw(len(real))
        score, compared = self.judge(fake, *classes), None
        if self.module.loss.compares:
            with torch.no_grad():
                compared = self.judge(real)
        return self.module.loss.generator(score, compared)


class Conditional(Loop):
    """CGAN and SAGAN."""

    def classes(self, n: int) -> tuple[Tensor, ...]:
        count = self.module.num_classes
        return (torch.randint(count, (n,), device=self.device),) if count else ()


class AuxiliaryClassifier(Conditional):
    """ACGAN."""

    def discriminator_loss(self, _: Any, real: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            fake, (asked,) = self.draw(len(real))
        (real_score, real_class), (fake_score, fake_class) = self.discriminator(real), self.discriminator(fake)
        classes = cross_entropy(real_class.float(), label) + cross_entropy(fake_class.float(), asked)
        return self.module.loss.discriminator(real_score.float(), fake_score.float()) + classes

    def generator_loss(self, _: Any, real: Tensor, label: Tensor) -> Tensor:
        fake, (asked,) = self.draw(len(real))
        score, classes = self.discriminator(fake)
        return self.module.loss.generator(score.float()) + cross_entropy(classes.float(), asked)


class Codes(Loop):
    """InfoGAN."""

    def noise(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        m = self.module
        category = torch.randint(m.categories, (n,), device=self.device)
        uniform = torch.rand(n, m.continuous + m.latent_dim, device=self.device) * 2 - 1
        noise = torch.cat([one_hot(category, m.categories).float(), uniform], 1)
        return noise, category, uniform[:, : m.continuous]

    def information(self, of_category: Tensor, of_continuous: Tensor, category: Tensor, continuous: Tensor) -> Tensor:
        squares = (of_continuous.float() - continuous).square().sum(1).mean() / 2
        return (
            self.module.category_weight * cross_entropy(of_category.float(), category)
            + self.module.continuous_weight * squares
        )

    def discriminator_loss(self, _: Any, real: Tensor, *label: Tensor) -> Tensor:
        noise, *codes = self.noise(len(real))
        with torch.no_grad():
            fake = self.generator(noise)
        real_score = self.discriminator(real)[0].float()
        fake_score, *found = self.discriminator(fake)
        return self.module.loss.discriminator(real_score, fake_score.float()) + self.information(*found, *codes)

    def generator_loss(self, _: Any, real: Tensor, *label: Tensor) -> Tensor:
        noise, *codes = self.noise(len(real))
        score, *found = self.discriminator(self.generator(noise))
        return self.module.loss.generator(score.float()) + self.information(*found, *codes)


# Images to images


class Enlarging(Loop):
    """SRResNet, and with a discriminator SRGAN with the pixels' error as content loss."""

    def fakes(self, source: Tensor, target: Tensor) -> Tensor:
        return self.generator(source)

    def discriminator_loss(self, fake: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return self.module.loss.discriminator(self.judge(target), self.judge(fake.detach()))

    def generator_loss(self, fake: Tensor, source: Tensor, target: Tensor) -> Tensor:
        content = mse_loss(fake.float(), target)
        if self.optimizer_d is None:
            return content
        return content + self.module.adversarial_weight * self.module.loss.generator(self.judge(fake))


class Paired(Loop):
    """pix2pix."""

    def fakes(self, source: Tensor, target: Tensor) -> Tensor:
        return self.generator(source)

    def discriminator_loss(self, fake: Tensor, source: Tensor, target: Tensor) -> Tensor:
        real, generated = (self.judge(torch.cat([source, image], 1)) for image in (target, fake.detach()))
        return self.module.loss.discriminator(real, generated) / 2

    def generator_loss(self, fake: Tensor, source: Tensor, target: Tensor) -> Tensor:
        adversarial = self.module.loss.generator(self.judge(torch.cat([source, fake], 1)))
        return adversarial + self.module.l1_weight * l1_loss(fake.float(), target)


class Contrastive(Loop):
    """CUT."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heads = self.module.heads.to(self.device)
        self.optimizer_h = self.module.heads_optimizer(self.heads.parameters())

    def step(self, *batch: Tensor) -> None:
        self.optimizer_h.zero_grad()
        super().step(*batch)
        self.optimizer_h.step()

    def fakes(self, a: Tensor, b: Tensor) -> Tensor:
        return self.generator(torch.cat([a, b]))

    def discriminator_loss(self, fake: Tensor, a: Tensor, b: Tensor) -> Tensor:
        real, generated = self.discriminator(b).float(), self.discriminator(fake[: len(a)].detach()).float()
        return ((real - 1).square().mean() + generated.square().mean()) / 2

    def features(self, images: Tensor) -> list[Tensor]:
        found = [images]
        for number, layer in enumerate(self.generator):
            images = layer(images)
            if number in self.module.layers:
                found += [images] * self.module.layers.count(number)
            if number == self.module.layers[-1]:
                return found
        raise AssertionError

    def generator_loss(self, fake: Tensor, a: Tensor, b: Tensor) -> Tensor:
        adversarial = (self.discriminator(fake[: len(a)]).float() - 1).square().mean()
        queries = self.features(fake)
        with torch.no_grad():
            keys = self.features(torch.cat([a, b]))
        places = [torch.randperm(k.shape[2] * k.shape[3], device=k.device)[: self.module.patches] for k in keys]
        contrast: Tensor | float = 0.0
        for head, query, key, place in zip(self.heads, queries, keys, places, strict=True):
            q, k = (normalize(head(f.flatten(2)[:, :, place].mT).float(), dim=-1) for f in (query, key.detach()))
            with torch.autocast(self.device, enabled=False):
                similarity = torch.bmm(q, k.detach().mT) / self.module.temperature
            contrast = contrast - similarity.log_softmax(-1).diagonal(dim1=1, dim2=2).mean() / len(keys)
        return adversarial + self.module.nce_weight * contrast


class Cyclic(Loop):
    """CycleGAN."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}

    def fakes(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.generator["b_to_a"](b), self.generator["a_to_b"](a)

    def pooled(self, domain: str, images: Tensor) -> Tensor:
        """Image by image, as in the official code."""
        pool, shown = self.pools[domain], []
        for image in images:
            if len(pool) < self.module.pool_size:
                pool.append(image)
                shown.append(image)
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(len(pool), ()))
                shown.append(pool[place])
                pool[place] = image
            else:
                shown.append(image)
        return torch.stack(shown)

    def discriminator_loss(self, fakes: tuple[Tensor, Tensor], a: Tensor, b: Tensor) -> Tensor:
        loss: Tensor | float = 0.0
        for domain, real, fake in zip("ab", (a, b), fakes, strict=True):
            of_real = self.discriminator[domain](real).float()
            of_fake = self.discriminator[domain](self.pooled(domain, fake.detach().float())).float()
            loss = loss + ((of_real - 1).square().mean() + of_fake.square().mean()) / 2
        return loss  # type: ignore[return-value]

    def generator_loss(self, fakes: tuple[Tensor, Tensor], a: Tensor, b: Tensor) -> Tensor:
        to_a, to_b = self.generator["b_to_a"], self.generator["a_to_b"]
        fake_a, fake_b = fakes
        fooled = (self.discriminator["a"](fake_a).float() - 1).square().mean()
        fooled = fooled + (self.discriminator["b"](fake_b).float() - 1).square().mean()
        cycle = l1_loss(to_a(fake_b).float(), a) + l1_loss(to_b(fake_a).float(), b)
        same = l1_loss(to_a(a).float(), a) + l1_loss(to_b(b).float(), b)
        weight = self.module.cycle_weight
        return fooled + weight * cycle + weight * self.module.identity_weight * same


class Discovering(Loop):
    """DiscoGAN."""

    discriminator_every = 2

    def fakes(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.generator["b_to_a"](b), self.generator["a_to_b"](a)

    def discriminator_loss(self, fakes: tuple[Tensor, Tensor], a: Tensor, b: Tensor) -> Tensor:
        loss: Tensor | float = 0.0
        for domain, real, fake in zip("ab", (a, b), fakes, strict=True):
            of_real, of_fake = (self.discriminator[domain](images)[0].float() for images in (real, fake.detach()))
            loss = loss + self.module.loss.discriminator(of_real, of_fake)
        return loss  # type: ignore[return-value]

    def generator_loss(self, fakes: tuple[Tensor, Tensor], a: Tensor, b: Tensor) -> Tensor:
        fake_a, fake_b = fakes
        back_a, back_b = self.generator["b_to_a"](fake_b), self.generator["a_to_b"](fake_a)
        loss: Tensor | float = 0.0
        for domain, real, fake in zip("ab", (a, b), fakes, strict=True):
            score, features = self.discriminator[domain](fake)
            with torch.no_grad():
                wanted = self.discriminator[domain](real)[1]
            loss = loss + 0.1 * self.module.loss.generator(score.float())
            for f, w in zip(features, wanted, strict=True):
                loss = loss + 0.9 * mse_loss(f.float().mean(0), w.float().mean(0))
        rate = self.module.reconstruction_rate[self.updates + self.judged >= self.module.rate_steps]
        cycle = (mse_loss(back_a.float(), a) + mse_loss(back_b.float(), b)) / 4
        return (1 - rate) * loss + rate * cycle


class Domains(Loop):
    """StarGAN with one domain an image."""

    def vector(self, label: Tensor) -> Tensor:
        return one_hot(label, len(self.module.domains)).float()

    def fakes(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        asked = label[torch.randperm(len(label), device=self.device)]
        return asked, self.generator(image, self.vector(asked))

    def judge(self, images: Tensor, *classes: Tensor) -> Tensor:
        return self.discriminator(images)[0].float()

    def discriminator_loss(self, fakes: tuple[Tensor, Tensor], image: Tensor, label: Tensor) -> Tensor:
        fake = fakes[1].detach()
        real_score, domain = self.discriminator(image)
        loss = self.module.loss.discriminator(real_score.float(), self.judge(fake))
        loss = loss + self.module.class_weight * cross_entropy(domain.float(), label)
        return loss + self.penalty(image, fake)

    def generator_loss(self, fakes: tuple[Tensor, Tensor], image: Tensor, label: Tensor) -> Tensor:
        asked, fake = fakes
        score, domain = self.discriminator(fake)
        loss = self.module.loss.generator(score.float()) + self.module.class_weight * cross_entropy(
            domain.float(), asked
        )
        back = self.generator(fake, self.vector(label)).float()
        return loss + self.module.reconstruction_weight * l1_loss(back, image)


LOOPS: dict[type[GANModule], type[Loop]] = {
    **dict.fromkeys((DCGAN, GAN, LSGAN, RealnessGAN, StyleDCGAN, StyleGAN, WGAN, WGANGP), Loop),
    ACGAN: AuxiliaryClassifier,
    CGAN: Conditional,
    ConvolutionalCGAN: Conditional,
    CUT: Contrastive,
    CycleGAN: Cyclic,
    DiscoGAN: Discovering,
    InfoGAN: Codes,
    Pix2Pix: Paired,
    SAGAN: Conditional,
    SRGAN: Enlarging,
    SRResNet: Enlarging,
    StarGAN: Domains,
}


def by_hand(module: GANModule, device: str = "cpu", half: bool = False) -> Loop:
    """The hand-written training of a module's networks.

    Raises:
        LookupError: There is none for a module of this class.
    """
    if type(module) not in LOOPS:
        raise LookupError(f"{type(module).__name__} has no loop written by hand: add one to LOOPS in {__file__}")
    return LOOPS[type(module)](module, device, half)
