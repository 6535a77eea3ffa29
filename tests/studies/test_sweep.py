"""A study's file: what it may say, which runs it asks for, and their command lines."""

import statistics

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.studies.sweep import DISTRIBUTIONS, read_sweep
from command_line import ROOT

GRID = {
    "method": "grid",
    "parameters": {
        "model.loss": {"values": ["Hinge", "Wasserstein"]},
        "seed_everything": {"values": [0, 1, 2]},
        "trainer.max_steps": {"value": 10},
    },
}


@pytest.fixture
def sweep_of(tmp_path):
    def made(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return read_sweep(str(path))

    return made


def test_a_grid_is_all_combinations_named_by_what_differs(sweep_of):
    sweep = sweep_of(GRID)
    settings = list(sweep.settings())
    assert len(sweep) == len(settings) == 6
    assert settings[1] == {"model.loss": "Hinge", "seed_everything": 1, "trainer.max_steps": 10}
    assert [sweep.name_of(s) for s in settings][::3] == ["loss=Hinge,seed=0", "loss=Wasserstein,seed=0"]
    assert (sweep.name, sweep.axes) == ("mine", ["model.loss", "seed_everything"])
    assert [s["seed_everything"] for s in sweep.with_seeds([7]).settings()] == [7, 7]
    assert len(sweep_of(GRID | {"run_cap": 4})) == len(list(sweep_of(GRID | {"run_cap": 4}).settings())) == 4


def test_names_are_told_apart_and_short(sweep_of):
    blur = {"class_path": "kornia.augmentation.RandomGaussianBlur", "init_args": {"kernel_size": [3, 3]}}
    sweep = sweep_of(
        {
            "method": "grid",
            "parameters": {
                "config": {"values": ["configs/gan/mnist.yaml", "configs/dcgan/mnist.yaml"]},
                "data.augment": {"values": [[], [blur, {"class_path": "kornia.augmentation.RandomHorizontalFlip"}]]},
                "model.generator_optimizer.lr": {"values": [0.001]},
                "model.discriminator_optimizer.lr": {"values": [0.0001, 1]},
            },
        }
    )
    names = [sweep.name_of(settings) for settings in sweep.settings()]
    assert names[0] == "gan-mnist,augment=none,lr=0.0001"
    assert "augment=RandomGaussianBlur+RandomHorizontalFlip" in names[2]


def test_numbers_drawn_at_random_are_of_their_distributions_and_the_same_every_time(sweep_of):
    cases = {
        "int_uniform": {"min": 3, "max": 5},
        "uniform": {"min": 0.5, "max": 0.75},
        "q_uniform": {"min": 0, "max": 1, "q": 0.25},
        "log_uniform_values": {"min": 1e-5, "max": 1e-1},
        "log_uniform": {"min": -3, "max": 0},
        "normal": {"mu": 2.0, "sigma": 0.5},
        "categorical_w_probabilities": {"values": ["a", "b"], "probabilities": [0.9, 0.1]},
    }
    given = {f"model.{name}": {"distribution": name} | numbers for name, numbers in cases.items()}
    sweep = sweep_of({"method": "random", "run_cap": 2000, "parameters": given})
    drawn = {name: [settings[f"model.{name}"] for settings in sweep.settings()] for name in cases}
    assert drawn == {name: [settings[f"model.{name}"] for settings in sweep.settings()] for name in cases}
    assert set(drawn["int_uniform"]) == {3, 4, 5}
    assert all(0.5 <= value <= 0.75 for value in drawn["uniform"])
    assert set(drawn["q_uniform"]) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert statistics.median(drawn["log_uniform_values"]) == pytest.approx(1e-3, rel=0.3)
    assert statistics.median(drawn["log_uniform"]) == pytest.approx(2.718281828**-1.5, rel=0.1)
    assert statistics.stdev(drawn["normal"]) == pytest.approx(0.5, rel=0.1)
    assert drawn["categorical_w_probabilities"].count("a") == pytest.approx(1800, rel=0.05)


def test_the_command_line_is_that_of_a_wandb_agent(sweep_of):
    """By wandb's own functions, which its agent uses; settings that are no words are read as what they are."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    command = ["${env}", "${interpreter}", "${program}", "fit", "--config=base.yaml", "${args}"]
    sweep = sweep_of(GRID | {"program": "train.py", "command": command})
    settings = next(sweep.settings())
    agents = create_sweep_command_args({"args": {key: {"value": value} for key, value in settings.items()}})
    assert sweep.words(settings) == ["fit", "--config=base.yaml", *agents["args"]]
    assert sweep.words(settings)[2:] == ["--model.loss=Hinge", "--seed_everything=0", "--trainer.max_steps=10"]
    assert sweep.words({"model.loss": "Hinge", "config": "a.yaml"})[2] == "--config=a.yaml"


WRONG = {
    "an unknown key": (GRID | {"metod": "grid"}, "the key metod is unknown"),
    "no method": ({"parameters": GRID["parameters"]}, "method must be one of grid, random, bayes; got None"),
    "no parameters": ({"method": "grid"}, "parameters must name"),
    "no values": ({"method": "grid", "parameters": {"a": {"values": []}}}, "parameters.a.values must be a list"),
    "a word": ({"method": "grid", "parameters": {"a": 3}}, "parameters.a must say value, values or distribution"),
    "a typo in a parameter": ({"method": "grid", "parameters": {"a": {"value": 1, "vals": 2}}}, "parameters.a.vals"),
    "an unknown distribution": (
        {"method": "random", "run_cap": 1, "parameters": {"a": {"distribution": "gamma"}}},
        "parameters.a.distribution must be one of",
    ),
    "a range the wrong way round": (
        {"method": "random", "run_cap": 1, "parameters": {"a": {"min": 2, "max": 1}}},
        "parameters.a: min 2 is above max 1",
    ),
    "no end": ({"method": "random", "parameters": {"a": {"min": 1, "max": 2}}}, "has no end: give run_cap"),
    "a grid without an end": ({"method": "grid", "parameters": {"a": {"min": 0.5, "max": 2.0}}}, "a grid needs values"),
    "a command without the settings": (GRID | {"command": ["python", "train.py"]}, "with ${program} and ${args}"),
    "an unknown goal": (
        GRID | {"metric": {"name": "score/fid", "goal": "least"}},
        "metric.goal must be minimize or maximize",
    ),
    "what a study says itself": (
        {"method": "grid", "parameters": {"run_dir": {"values": ["a", "b"]}}},
        "parameters.run_dir must be left out",
    ),
    "a typo alone": ({"method": "grid", "parameters": {"a": {"valuess": [1]}}}, "got {'valuess': [1]}"),
    "nothing to prune by": (
        {"method": "bayes", "run_cap": 2, "metric": {"name": "score/fid", "goal": "minimize"}}
        | {"parameters": {"a": {"values": [1, 2]}}, "early_terminate": {"type": "hyperband"}},
        "early_terminate must be {type: hyperband, min_iter: SCORES",
    ),
    "a metric that is no score": (GRID | {"metric": {"name": "loss/generator"}}, "metric.name must be the name of"),
    "a nested parameter": (
        {"method": "grid", "parameters": {"model": {"parameters": {"loss": {"value": 1}}}}},
        "write its settings as model.NAME",
    ),
    "a list": ("- method: grid\n", "it holds a list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_the_files_name(case, sweep_of):
    content, said = WRONG[case]
    with pytest.raises(MisconfigurationException) as raised:
        sweep_of(content)
    assert said in str(raised.value)
    assert "mine.yaml" in str(raised.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_read(path):
    sweep = read_sweep(str(path))
    assert sweep.name == path.stem
    assert path.read_text().startswith(f"# python train.py study configs/studies/{path.name}\n")
    names = [sweep.name_of(settings) for settings in sweep.settings()]
    assert len(names) > 1


def test_every_distribution_draws_something(sweep_of):
    numbers = {"min": 1, "max": 2, "values": [1], "probabilities": [1], "value": 1}
    given = {
        f"a.{name}": {"distribution": name} | {key: numbers[key] for key in needed}
        for name, (needed, _, _) in DISTRIBUTIONS.items()
    }
    (settings,) = sweep_of({"method": "random", "run_cap": 1, "parameters": given}).settings()
    assert settings.keys() == given.keys()
