"""What stands for a Python in tests of programs that start others: it does what a Python does, but for its imports."""

import os
import signal
import subprocess
import time

import pytest

from command_line import environment

SCRIPT = """
import os, pathlib, sys, time
print(sys.argv[1:], ascii(os.environ["MINE"]), os.getcwd(), "torch" in sys.modules, __name__, flush=True)
print("said", file=sys.stderr)
pathlib.Path("pid").write_text(str(os.getpid()))
if sys.argv[1] == "wait":
    pathlib.Path("waiting").touch()
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def begin(forking, tmp_path):
    """Start the script; it is waited for."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def started(word):
        words = [forking["FORKS"], "-u", "script.py", word, "b c"]
        variables = environment(tmp_path) | {"MINE": "caf\udce9"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, cwd=tmp_path, env=variables, **pipes)
        while word == "wait" and not (tmp_path / "waiting").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    return started


def test_words_environment_folder_streams_and_exit_code(begin, tmp_path):
    process = begin("3")
    out, errors = process.communicate(timeout=60)
    assert out.decode() == rf"['3', 'b c'] 'caf\udce9' {tmp_path} True __main__" + "\n"
    assert (errors, process.returncode) == (b"said\n", 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_signals(number, begin, tmp_path):
    process = begin("wait")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(int((tmp_path / "pid").read_text()), 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("it goes on")
