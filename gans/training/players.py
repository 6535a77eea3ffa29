"""The networks that a GAN trains, by name, and their optimizers: built, tried out, given back their state."""

import math
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gans.training.checkpoints import is_plain, name_of
from gans.training.optimizers import LinearDecay
from gans.training.progress import check_end


class Players(LightningModule):
    """What of a GANModule has to do with optimizers. A player is a network that some update trains."""

    updates: dict[str, tuple[str, ...]]
    spent: float | None = None
    """Share of the images or of the time that a run may take, if somebody limits them and keeps this up to date."""

    def __init__(self) -> None:
        super().__init__()
        self._built: dict[str, Any] = {}  # by player, how its optimizer and schedule were when they were new

    @property
    def players(self) -> list[str]:
        """Names of the networks that are trained, in the order of their optimizers."""
        return list(dict.fromkeys(player for players in self.updates.values() for player in players))

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        self._built = {}
        optimizers, of_players = zip(*map(self.build_optimizer, self.players), strict=True)
        schedulers = [scheduler for of_player in of_players for scheduler in of_player]
        if self._trainer is not None and any(isinstance(s, LinearDecay) and s.in_shares for s in schedulers):
            check_end(self.trainer, self.spent)
        return list(optimizers), schedulers

    def optimizer_of(self, player: str) -> Any:
        """Lightning's wrapper of a player's optimizer, whose step the trainer counts."""
        optimizers = self.optimizers()
        return optimizers[self.players.index(player)] if isinstance(optimizers, list) else optimizers

    def build_optimizer(self, player: str) -> tuple[Optimizer, list[LRScheduler]]:
        """A player's optimizer and, in a list, its schedule if there is one; their settings are noted.

        Raises:
            MisconfigurationException: They do not take the settings that they are given, or there is no optimizer.
        """
        make, schedule = (getattr(self, f"{player}_{kind}", None) for kind in ("optimizer", "scheduler"))
        if make is None:
            raise MisconfigurationException(
                f"{type(self).__name__} trains {player}: its constructor must take {player}_optimizer, and keep it in "
                f"self.{player}_optimizer"
            )
        optimizer = made(f"--model.{player}_optimizer", make, getattr(self, player).parameters())
        self._try_out(player, make, schedule)
        self._built[player] = {"optimizer": settings_of(optimizer), "scheduler": None}
        if not schedule:
            return optimizer, []
        scheduler = made(f"--model.{player}_scheduler", schedule, optimizer)
        self._built[player]["scheduler"] = settings_of(scheduler)
        return optimizer, [scheduler]

    def _try_out(self, player: str, make: Any, schedule: Any) -> set[str]:
        """Take a few steps with a weight of zeros and no gradient, so that what cannot train is found before training.

        Returns:
            Names of the state that the optimizer keeps of a weight.

        Raises:
            MisconfigurationException: The optimizer cannot take a step, or the schedule cannot go so far.
        """
        of_optimizer, of_schedule = (f"--model.{player}_{kind}" for kind in ("optimizer", "scheduler"))
        first = next(getattr(self, player).parameters())
        weight = nn.Parameter(torch.zeros_like(first))
        weight.grad = torch.zeros_like(first)
        with torch.random.fork_rng([]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = made(of_optimizer, make, [weight])
            made(f"{of_optimizer}={type(optimizer).__name__} cannot train a GAN, take another", optimizer.step)
            scheduler = made(of_schedule, schedule, optimizer) if schedule else None
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                raise MisconfigurationException(
                    f"{of_schedule} cannot be ReduceLROnPlateau: a GAN's losses have no plateau to wait for; take a "
                    "schedule in steps, such as LinearLR."
                )
            if scheduler is not None:
                numbers = {
                    k: v for k, v in scheduler.state_dict().items() if isinstance(v, int | float) and k[0] != "_"
                }
                for name, value in numbers.items():
                    if not 0 <= value < math.inf:
                        raise MisconfigurationException(f"{of_schedule}.{name}={value:g} must be at least 0")
                zeros = [k for k, v in numbers.items() if type(v) is int and v == 0 and k != "last_epoch"]
                zero = "".join(f".{name}=0 must be at least 1" for name in zeros[:1])
                for _ in range(3):
                    made(of_schedule + zero, scheduler.step)
                steps = -1 if self._trainer is None else self._trainer.max_steps
                if steps > 3:
                    scheduler.last_epoch = steps - 1
                    made(f"{of_schedule} does not go as far as --trainer.max_steps={steps}", scheduler.step)
        return set(optimizer.state[weight])

    def restore_optimizers(self, saved: dict[str, Any]) -> None:
        """Give optimizers and schedules their state back, as far as it fits what they are now."""
        before, states, schedules = records_of(saved), saved["optimizer_states"], iter(saved["lr_schedulers"])
        if not before or len(self._built) != len(self.trainer.optimizers):
            # Nothing is known of their settings: as Lightning does it.
            self.trainer.strategy.load_optimizer_state_dict({"optimizer_states": states})
            for config, state in zip(self.trainer.lr_scheduler_configs, schedules, strict=False):
                config.scheduler.load_state_dict(state)
            return
        of_player = dict(zip(before, states, strict=False))
        of_schedule = {player: next(schedules, None) for player in before if before[player]["scheduler"] is not None}
        for player, optimizer in zip(self._built, self.trainer.optimizers, strict=True):
            schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
            scheduler = next((s for s in schedulers if getattr(s, "optimizer", None) is optimizer), None)
            state = of_player.get(player)
            now, then = self._built[player], before.get(player, {"optimizer": None, "scheduler": None})
            changes = self._changes(player, optimizer, state, then["optimizer"])
            fresh = optimizer.state_dict()["param_groups"]
            as_before = changes is not None and "lr" not in changes and now["scheduler"] == then["scheduler"]
            if state is not None and changes is not None:
                pairs = zip(state["param_groups"], fresh, strict=True)
                groups = [old | {key: new[key] for key in ("params", *changes)} for old, new in pairs]
                optimizer.load_state_dict(state | {"param_groups": groups if as_before else fresh})
            else:
                rank_zero_info(f"The {player}'s optimizer starts anew: the checkpoint has no state that fits it.")
            if changes:
                rank_zero_info(
                    f"The {player}'s optimizer was {spelled(then['optimizer'])} in the checkpoint and is now "
                    f"{spelled(now['optimizer'])}."
                )
            if as_before and scheduler is not None:
                scheduler.load_state_dict(of_schedule[player])
            elif scheduler is not None:
                _fast_forward(f"--model.{player}_scheduler", scheduler, saved["global_step"])
            if now["scheduler"] != then["scheduler"]:
                rank_zero_info(
                    f"The {player}'s schedule was {spelled(then['scheduler'])} in the checkpoint and is now "
                    f"{spelled(now['scheduler'])}, as if it had been so from the first step."
                )

    def _changes(self, player: str, optimizer: Optimizer, state: Any, then: Any) -> list[str] | None:
        """Hyperparameters that are others than in the checkpoint; none at all if its state does not fit."""
        now = self._built[player]["optimizer"]
        groups = optimizer.state_dict()["param_groups"]
        if (
            state is None
            or then["class"] != now["class"]
            or [len(g["params"]) for g in state["param_groups"]] != [len(g["params"]) for g in groups]
        ):
            return None
        pairs = list(zip(then["settings"], now["settings"], strict=True))
        changes = sorted({k for old, new in pairs for k in new if k not in old or old[k] != new[k]})
        if changes:
            # Some settings, such as momentum or amsgrad, need more state than there is: a step of another one tells.
            kept_now = self._try_out(player, getattr(self, f"{player}_optimizer"), None)
            if any(kept.keys() != kept_now for kept in state["state"].values()):
                return None
        return changes

    def compare_optimizers(self, trained_with: dict[str, Any]) -> None:
        """Say when a loaded model is trained further in another way than before, without being told to."""
        for name, before in trained_with.items():
            player, _, kind = name.rpartition("_")
            now = self._built.get(player, {kind: before})[kind]
            if now != before:
                rank_zero_warn(
                    f"The loaded model's {player} was trained with {kind} {spelled(before)} and goes on with "
                    f"{spelled(now)}: give {name}= to load_to_train for the same or another one."
                )


def made(what: str, make: Any, *args: Any, **kwargs: Any) -> Any:
    """What a constructor makes; its complaint about arguments becomes a sentence that names them."""
    try:
        return make(*args, **kwargs)
    except MisconfigurationException:
        raise
    except Exception as error:  # of somebody else's class
        raise MisconfigurationException(f"{what}: {error}") from error


# What optimizers and schedules are like


def settings_of(thing: Any) -> dict[str, Any]:
    """The class of a new optimizer or schedule, and its settings: one dictionary a group of weights, or one in all."""
    state = thing.state_dict()
    groups = state["param_groups"] if isinstance(thing, Optimizer) else [state]
    return {"class": name_of(type(thing)), "settings": [_plain_part(group, without="params") for group in groups]}


def _plain_part(value: Any, without: str = "") -> Any:
    """A value as a checkpoint can keep it: of what is not plain only the class."""
    if isinstance(value, dict):
        return {key: _plain_part(v) for key, v in value.items() if key != without and is_plain(key)}
    if isinstance(value, list | tuple):
        return [_plain_part(v) for v in value]
    if isinstance(value, Tensor):
        return value.tolist()
    return value if is_plain(value) else name_of(type(value))


def records_of(saved: dict[str, Any]) -> dict[str, Any]:
    """What optimizers and schedules were like, by player; nothing in older checkpoints."""
    records = saved.get("optimizers", {})
    kinds = {"optimizer", "scheduler"}
    fits = isinstance(records, dict) and all(isinstance(r, dict) and r.keys() == kinds for r in records.values())
    return records if fits else {}


def spelled(record: Any) -> str:
    """A record of settings for the user to read, such as "Adam(lr=0.0002, betas=[0.5, 0.999])"."""
    if not isinstance(record, dict):
        return "none"
    first: dict[str, Any] = next(iter(record.get("settings", [])), {})
    hidden = "base_lrs", "last_epoch", "foreach", "maximize", "capturable", "differentiable", "fused"
    shown = [f"{k}={v}" for k, v in first.items() if v is not None and not k.startswith("_") and k not in hidden]
    return f"{str(record.get('class')).rpartition('.')[2]}({', '.join(shown)})"


def _fast_forward(name: str, scheduler: LRScheduler, steps: int) -> None:
    """Step a new schedule to where it would be if it had been there from the first step.

    Raises:
        MisconfigurationException: It does not go so far.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer should step first
        for _ in range(steps):
            made(f"{name} does not go as far as step {steps}, where the checkpoint stands", scheduler.step)
