"""tests/benchmarks/fuzz.py: that it tells the ways in which a case can end, and on a few cases, finds nothing wrong."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
from fuzz import Case, config_case, damaged_image, image_case, judged  # noqa: E402

SENTENCE = "error: --model.width=0 must be at least 1"


@pytest.mark.parametrize(
    ("kind", "status", "errors", "executed"),
    [
        ("sentence", 1, f"warning: something\n{SENTENCE}\n", False),
        ("accepted", 0, "warning: something\n", False),
        ("traceback", 1, "Traceback (most recent call last):\n  ...\nKeyError: 1\n", False),
        ("traceback", 1, f"Traceback (most recent call last):\n{SENTENCE}\n", False),
        ("traceback", 1, f"{SENTENCE}\nand more\n", False),
        ("traceback", 1, f"{SENTENCE}\n{SENTENCE}\n", False),
        ("traceback", 1, "error: 1\n", False),
        ("traceback", 1, "", False),
        ("traceback", 2, f"{SENTENCE}\n", False),
        ("traceback", -11, "", False),
        ("traceback", 0, "Exception in thread:\nTraceback (most recent call last):\n", False),
        ("hang", None, "", False),
        ("execution", 0, "", True),
        ("execution", None, f"{SENTENCE}\n", True),
    ],
)
def test_how_a_case_ends(kind, status, errors, executed):
    assert judged(Case("", [], {}), status, errors, executed).kind == kind


def test_a_sentence_must_name_what_it_is_about():
    assert judged(Case("", [], {}, "a.png"), 1, "error: Broken image data/a.png: mend it\n", False).kind == "sentence"
    assert judged(Case("", [], {}, "b.png"), 1, "error: Broken image data/a.png: mend it\n", False).kind == "traceback"


def test_a_seed_gives_the_same_cases_and_another_one_others():
    configs = {"DCGAN": {"model": {"class_path": "gans.DCGAN", "init_args": {"width": 4}}, "name": None}}

    def cases(seed):
        configured = [config_case(i, configs, seed) for i in range(40)]
        return configured + [image_case(i, {"Pix2Pix": Path("last.ckpt")}, seed) for i in range(40)]

    assert cases(0) == cases(0)
    assert len({case.name for case in cases(0)} & {case.name for case in cases(1)}) < 20
    assert len({what.split(maxsplit=2)[2] for _, _, what in (damaged_image(random.Random(i)) for i in range(400))}) > 15


@pytest.mark.slow
def test_nothing_is_wrong_with_a_few_cases():
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "--configs=30", "--images=15", "--workers=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
