"""How much a run may take, in images or in time, the end with its scores and pictures included."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.runs.ranks import agreed

TRIED = 0.1  # share of the time after which the end is tried out
SPARE = 0.25, 3.0  # share of what the end took that it may take more, and seconds: the program's last ones
WARM = 3  # batches that may take longer than others, because networks are compiled
OFTEN = 1.0  # seconds between two agreements of several ranks


class Budget(Callback):
    """End training when the run, over all its parts, has taken so many images or so much time.

    Of time there are two limits. ``minutes`` are those of training, so that runs of equal minutes can be compared
    whatever else they had to do first. The Trainer's ``max_time`` is the whole run's: it begins with the program.

    Training stops early enough for the last validation, pictures and checkpoint to be done within the limit. How long
    they take is found out: after a tenth of the time they are made once, where none has been made by then. Several
    ranks go by the first one's clock.

    Learning rates that fall over a share of the training go by ``module.spent``, which this callback sets.

    Args:
        images: Real images, those that were seen several times counted as often; 0 sets no limit.
        minutes: Minutes of training, from its first step to its last picture, without the time for which it was
            interrupted; 0 sets no limit.

    Raises:
        MisconfigurationException: One of them is negative, or (before training) nothing can be trained in this time.
    """

    before_fit = 0.0
    """Seconds that the program had taken when the run's ``fit`` began, where somebody tells."""

    def __init__(self, images: Annotated[int, "[0, inf)"] = 0, minutes: Annotated[float, "[0, inf)"] = 0.0) -> None:
        for name, value in (("images", images), ("minutes", minutes)):
            if value < 0:
                raise MisconfigurationException(f"--budget.{name} must be 0 or more; got {value}")
        self.images, self.minutes = images, minutes
        self._began, self._before = 0.0, 0.0
        self._set_up = 0.0  # when getting ready began
        self._ready = 0.0  # seconds that getting ready to train has taken, in all parts of the run
        self._given = 0.0  # seconds of max_time; 0 where there is none
        self._limit = 0.0  # in seconds of training, whichever the limit is
        self._validations: list[float] = []  # seconds of the latest
        self._pictures: float | None = None  # seconds of those of the end, once they were tried out
        self._pause = 0.0  # longest from a batch to the next one, with pictures and checkpoints between them
        self._step, self._mark = 0.0, 0.0  # seconds of the latest batch; when it began
        self._apart = 0.0  # seconds since then of what is counted apart
        self._batches = self._next = 0  # the one after which ranks agree next
        self._of_time = 0.0  # share that is over
        self._over = 0.0  # limit by which the run has ended

    def state_dict(self) -> dict[str, Any]:
        taken = {"validations": self._validations, "pictures": self._pictures, "pause": self._pause}
        return {"seconds": self.seconds, "ready": self._ready, "over": self._over} | taken

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]
        self._ready, self._over = state_dict.get("ready", 0.0), state_dict.get("over", 0.0)
        self._validations = list(state_dict.get("validations", ()))
        self._pictures, self._pause = state_dict.get("pictures"), state_dict.get("pause", 0.0)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + (time.monotonic() - self._began if self._began else 0.0)

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._set_up = time.monotonic() - self.before_fit
        self._given = self._ready = 0.0
        for timer in trainer.callbacks:
            if isinstance(timer, Timer) and timer._interval == "step" and timer._duration is not None:
                self._given = min(self._given or timer._duration, timer._duration)
                # Its own end comes without the last validation, and its question lets all ranks wait at every batch.
                timer._duration = None
        pl_module.spent = 0.0 if self.images or self.minutes or self._given else None  # type: ignore[assignment]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self._mark = time.monotonic()
        self._ready = trainer.strategy.broadcast(self._ready + self._began - self._set_up)
        limits = 60 * self.minutes, self._given - self._ready if self._given else 0.0
        self._limit = min((limit for limit in limits if limit), default=0.0)
        if self._limit:
            with agreed(trainer):
                self._check(trainer, pl_module)
            self._time_validations(trainer)
        self._batches = self._next = 0
        self._decide(trainer, pl_module, begins=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.monotonic()
        if self._batches > WARM:
            self._pause = max(self._pause, now - self._mark - self._apart)
        self._mark, self._apart = now, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._step = time.monotonic() - self._mark
        self._batches += 1
        self._decide(trainer, pl_module)

    # What they do

    def _decide(self, trainer: Trainer, module: LightningModule, begins: bool = False) -> None:
        """Stop if it is time, which all ranks find alike; say what share of the budget is spent."""
        seen = getattr(module, "images_seen", 0)
        share, stop = (seen / self.images, seen >= self.images) if self.images else (0.0, False)
        if self._limit and (trainer.world_size == 1 or self._batches >= self._next):
            found = self._found(trainer, module, begins)
            self._of_time, late, try_out, wait = trainer.strategy.broadcast(found) if trainer.world_size > 1 else found
            self._next = self._batches + wait
            if try_out:
                self._try_out(trainer, module)
            if late and not trainer.should_stop and not begins:
                self._over = self._limit
                self._say(trainer)
            stop = stop or late
        if self._limit:
            share = max(share, self._of_time)
        if getattr(module, "spent", None) is not None:
            module.spent = min(1.0, share)  # type: ignore[assignment]
        trainer.should_stop = trainer.should_stop or stop

    def _found(self, trainer: Trainer, module: LightningModule, begins: bool) -> tuple[float, bool, bool, int]:
        """The share of the time that is over, whether it is all, whether to try the end out, and when to ask again."""
        seconds, (end, due) = self.seconds, self._to_come(trainer, module)
        left = self._limit - seconds
        share = seconds / max(self._limit - end, 1e-9)
        wait = max(1, int(OFTEN / self._step)) if self._step and trainer.world_size > 1 else 1
        if begins:  # a run that has had its time is only ended
            return share, left <= 0 or self._over >= self._limit, False, 1
        if not self._tried(trainer, module):
            return share, left <= 0, seconds >= TRIED * self._limit, wait
        return share, left < end + due + self._pause + (1 + wait) * self._step, False, wait

    def _to_come(self, trainer: Trainer, module: Any) -> tuple[float, float]:
        """Seconds of the end, and of a validation that comes right after this batch."""
        validation = max(self._validations, default=0.0) if trainer.enable_validation else 0.0
        share, seconds = SPARE
        last = validation if self._validates(trainer, module) else 0.0
        end = (1 + share) * (last + (self._pictures or 0.0) + self._pause) + seconds
        return end, (1 + share) * validation if getattr(module, "validation_due", False) else 0.0

    # The end, tried out

    def _tried(self, trainer: Trainer, module: LightningModule) -> bool:
        return self._pictures is not None and bool(self._validations or not self._validates(trainer, module))

    def _validates(self, trainer: Trainer, module: LightningModule) -> bool:
        return bool(trainer.enable_validation and getattr(module, "validates_last", False))

    def _try_out(self, trainer: Trainer, module: Any) -> None:
        """Make what comes at the end once: pictures now, checkpoint and validation right after this batch."""
        began = time.monotonic()
        for callback in trainer.callbacks:
            if hasattr(callback, "rehearse"):
                callback.rehearse(trainer, module)
        self._pictures = time.monotonic() - began
        self._apart += self._pictures
        if not self._validations and self._validates(trainer, module):
            module.validate_soon()

    def _time_validations(self, trainer: Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop.val_loop
        run = type(loop).run

        def timed() -> Any:
            began = time.monotonic()
            found = run(loop)
            took = time.monotonic() - began
            self._apart += took
            self._validations = [*self._validations[-2:], took]  # the first one looks at the real images, too
            if took > self._limit - self.seconds and len(self._validations) == 1:
                rank_zero_warn(
                    f"a validation takes {_time(took)}, and {_time(max(0, self._limit - self.seconds))} of "
                    f"{self._named()} are left, in which no other one fits: --score.num_images makes it shorter"
                )
            return found

        loop.run = timed  # type: ignore[method-assign]

    # What is said

    def _check(self, trainer: Trainer, module: LightningModule) -> None:
        """Raise MisconfigurationException where a new run has no time to train, or none to score what it trains."""
        if trainer.global_step:
            return
        if self._limit <= 0:
            raise MisconfigurationException(
                f"{self._named()} is over before training begins: getting ready took {_time(self._ready)}"
            )
        if trainer.enable_validation:
            timed = [callback for callback in trainer.callbacks if hasattr(callback, "shortest")]
            seconds = float(sum(callback.shortest(trainer, module) for callback in timed))
            if seconds > self._limit:
                raise MisconfigurationException(
                    f"{self._named()} is too short: a validation alone takes about {_time(seconds)} here; "
                    "--score.num_images and --score.num_real make it shorter"
                )

    def _named(self) -> str:
        if self._given and self._limit != 60 * self.minutes:
            return f"--trainer.max_time={_time(self._given)}"
        return f"--budget.minutes={self.minutes:g}"

    def _say(self, trainer: Trainer) -> None:
        of_run = self._ready if self._named().startswith("--trainer") else 0.0
        rank_zero_info(
            f"training ends at step {trainer.global_step:,}, after {_time(of_run + self.seconds)}, so that scores, "
            f"pictures and checkpoint are done within {self._named()}"
        )


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def since_start() -> float:
    """Seconds since this program was started, or nearly so where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError, IndexError):  # no Linux
        return time.process_time()
