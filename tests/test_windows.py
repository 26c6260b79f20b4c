"""What differs on Windows, with its name in place of this system's. Windows itself has not run the program."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from trains.runs import jobs
from utils import errors, files

TEXT = "\u4e2d\u6587"


@pytest.fixture
def held(monkeypatch, tmp_path):
    """A file that a virus scanner holds for some attempts to rename it. Returns a list that grows by one per attempt."""
    attempts = []

    def hold(for_attempts: int, system: str) -> list[int]:
        def replace(source, target):
            attempts.append(len(attempts))
            if len(attempts) <= for_attempts:
                raise PermissionError(13, "Permission denied", str(source))
            os.replace(source, target)

        (tmp_path / "new").write_text("new")
        monkeypatch.setattr(files, "os", SimpleNamespace(name=system, replace=replace))
        monkeypatch.setattr(files, "time", SimpleNamespace(sleep=lambda seconds: None))
        return attempts

    return hold


def test_a_rename_waits_for_a_virus_scanner(held, tmp_path):
    attempts = held(3, "nt")
    files.rename(tmp_path / "new", tmp_path / "old")
    assert len(attempts) == 4 and (tmp_path / "old").read_text() == "new"


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_a_rename_that_stays_refused_is_an_error(held, tmp_path, system):
    attempts = held(1000, system)
    with pytest.raises(PermissionError):
        files.rename(tmp_path / "new", tmp_path / "old")
    assert (len(attempts) == 1) == (system == "posix")


def test_output_and_errors_are_utf_8(monkeypatch):
    monkeypatch.setattr(errors, "os", SimpleNamespace(name="nt"))
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def work():
        print(TEXT)
        raise errors.UserError(TEXT)

    assert errors.run_program(work) == 2
    for stream in streams.values():
        stream.flush()
        assert TEXT in stream.buffer.getvalue().decode("utf-8")


def test_jobs_speak_utf_8_from_their_first_line_on(monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "os", SimpleNamespace(name="nt", environ={"PATH": "x"}))
    monkeypatch.setattr(
        jobs, "subprocess", SimpleNamespace(PIPE=subprocess.PIPE, Popen=lambda *_, **how: started.append(how))
    )
    jobs.Job("seed 1", [])
    assert started[0]["env"] == {"PATH": "x", "PYTHONUTF8": "1"}
