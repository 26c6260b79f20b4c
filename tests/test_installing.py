"""What a newcomer meets first: an old Python, a package that is missing, a PyTorch that sees no GPU."""

import ast
import platform
import subprocess
import sys

import pytest
import torch

from config.config_regression import REPOSITORY
from utils.device import describe_device

PROGRAMS = {  # file -> flags with which it gets beyond reading them
    "run.py": "--datasetName demo",
    "predict.py": "--checkpoint . --features y",
    "data/DataPre.py": "",
    "data/TextPre.py": "--features x --output y",
}
# Stands in for Python 3.10, which lacks these names.
OLD = """
import contextlib, datetime, enum, runpy, sys, typing
sys.version_info, sys.version = (3, 10, 13, "final", 0), "3.10.13 (main)"
del contextlib.chdir, datetime.UTC, enum.StrEnum, typing.assert_never, typing.LiteralString, typing.Never, typing.Self
if sys.argv[1].endswith(".py"):
    runpy.run_path(sys.argv[1], run_name="__main__")
else:
    runpy.run_module(sys.argv[1], run_name="__main__")
"""


def without_packages(*argv: str) -> subprocess.CompletedProcess:
    """Runs Python with the standard library alone."""
    command = [sys.executable, "-S", *argv]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8")


@pytest.mark.parametrize("program", [*PROGRAMS, "data.feature_file", "utils.convert_bert"])
def test_an_old_python_is_one_line_that_names_the_version_to_install(program):
    process = without_packages("-c", OLD, program)
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1
    assert "3.10.13" in process.stderr and "Python 3.11 or later" in process.stderr


def test_an_old_python_can_read_the_files_before_that_line():
    folders = [REPOSITORY, REPOSITORY / "config", REPOSITORY / "data"]
    for path in [path for folder in folders for path in folder.glob("*.py")] + [REPOSITORY / "utils" / "__init__.py"]:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(program):
    process = without_packages(program, *PROGRAMS[program].split())
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1
    assert " is not installed in " in process.stderr and "pip install -r requirements.txt" in process.stderr


@pytest.mark.parametrize("program", ["run.py", "predict.py", "data/TextPre.py"])
def test_help_needs_no_package(program):
    process = without_packages(program, "--help")
    assert process.returncode == 0 and "usage: " in process.stdout


@pytest.mark.parametrize(
    ("device", "cuda", "hip", "gpus", "system", "expected"),
    [
        ("cuda", "13.0", None, True, "Linux", "on NVIDIA H200"),
        ("cuda", None, "6.4", True, "Linux", "on NVIDIA H200"),  # AMD's GPUs, which PyTorch calls cuda
        ("cpu", "13.0", None, True, "Linux", "on the CPU"),  # --gpu_ids -1
        ("cpu", "13.0", None, False, "Linux", "on the CPU: PyTorch sees no GPU"),
        ("cpu", None, "6.4", False, "Linux", "on the CPU: PyTorch sees no GPU"),
        ("cpu", None, None, False, "Windows", "on the CPU: this PyTorch is a build without CUDA"),
        ("cpu", None, None, False, "Darwin", "on the CPU"),
    ],
)
def test_a_run_says_where_it_computes_and_why(monkeypatch, device, cuda, hip, gpus, system, expected):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(platform, "system", lambda: system)
    assert describe_device(torch.device(device)) == expected
