"""Shared fixtures."""

import gc
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Read when huggingface_hub is imported. No test may wait for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Subprocesses inherit this. With more threads than cores, idle threads spin and slow down the others.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402

import run  # noqa: E402

# What imports torch is imported where it is used: the process that hands the tests out to others needs none of it, and
# starts the others when it has read this file.
pytest.register_assert_rewrite("recorded")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")  # which Windows lacks


class Workplace:
    """A working directory for run.py, with a tiny corpus and text encoder."""

    def __init__(self, folder: Path):
        import tiny

        self.folder = folder
        self.features = tiny.write_features(folder / "data" / "unaligned.pkl")
        self.bert = tiny.write_bert(folder / "bert")

    def command(self, *argv: str) -> list[str]:
        """Adds the flags that every test run needs, unless they are present."""
        flags = {"--dataPath": self.features, "--bert": self.bert, "--gpu_ids": -1, "--seeds": 1, "--max_epochs": 2}
        for flag, value in flags.items():
            if flag not in argv:
                argv += (flag, value)
        return [*map(str, argv), "--no_figures"]

    def run(self, *argv: str) -> int:
        """Runs run.py on MOSI with small windows. Returns the exit status."""
        return run.main(self.command("--datasetName", "mosi", "--set", "batch_size=4", "update_epochs=2", *argv))

    def written(self) -> set[str]:
        """Files written since remember_inputs(), except complete stores."""
        files = {path for path in self.folder.rglob("*") if path.is_file()} - self.inputs
        stores = {path.parent for path in files if path.name == "meta.json" and path.parent.parent.suffix == ".store"}
        return {str(path.relative_to(self.folder)) for path in files if not stores & set(path.parents)}

    def remember_inputs(self) -> None:
        self.inputs = {path for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models are too small for more."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_change_of_the_process() -> Iterator[None]:
    """What run.py sets for its whole process doesn't reach the next test."""
    yield
    gc.unfreeze()
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    place = Workplace(tmp_path)
    place.remember_inputs()
    return place


@pytest.fixture
def fails(workplace, capsys):
    """Runs run.py with flags that it must reject with one error line, status 2 and no files. Returns the line."""

    def check(*argv: str) -> str:
        workplace.remember_inputs()
        capsys.readouterr()
        assert workplace.run(*argv) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
        assert captured.out == ""
        assert not workplace.written()
        return captured.err

    return check


LABEL_HEADER = "video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V\n"
LABEL_ROWS = [
    '001,0001,"so good, really",2.0,Positive,train,1,2,3',
    "001,0002,bad,-1,,Train,-1,-1,-1",
    "002,1,fine,0,,valid,0,0,0",
    "003,1,well,1,,test,1,,1",
]


@pytest.fixture
def label_table(tmp_path) -> Callable[..., Path]:
    """Writes a label table of LABEL_ROWS and further rows. Returns its path."""

    def write(*rows: str) -> Path:
        path = tmp_path / "label.csv"
        path.write_text(LABEL_HEADER + "\n".join([*LABEL_ROWS, *rows]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def text_pre_bert(tmp_path_factory) -> Path:
    """A text encoder with the vocabulary of cmu_pickles."""
    import cmu_pickles
    import tiny

    folder = tiny.write_bert(tmp_path_factory.mktemp("bert"), vocab_size=len(cmu_pickles.VOCABULARY))
    (folder / "vocab.txt").write_text("\n".join(cmu_pickles.VOCABULARY) + "\n")
    return folder


@pytest.fixture
def prepare(tmp_path, text_pre_bert, capsys):
    """Writes a CMU pickle and runs TextPre.py. Returns its exit status, features (None if not written) and output."""
    import tiny

    from data import TextPre

    def run_text_pre(content: object, *argv: str):
        tiny.write_features(tmp_path / "cmu.pkl", content)
        output = tmp_path / "out" / "features.pkl"
        flags = ["--features", tmp_path / "cmu.pkl", "--output", output, "--bert", text_pre_bert, *argv]
        status = TextPre.main([str(flag) for flag in flags])
        features = pickle.loads(output.read_bytes()) if output.exists() else None
        return status, features, "".join(capsys.readouterr())

    return run_text_pre


@pytest.fixture(scope="module")
def intact_google_checkpoint(tmp_path_factory) -> Path:
    import google_checkpoints

    return google_checkpoints.write_checkpoint(tmp_path_factory.mktemp("intact") / "checkpoint")


@pytest.fixture
def google_checkpoint(intact_google_checkpoint, tmp_path) -> Path:
    """A valid checkpoint of Google's that a test may damage."""
    return shutil.copytree(intact_google_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def refused(tmp_path, capsys):
    """Converts a checkpoint that convert_bert must reject with one error line, status 2 and no files. Returns the line."""
    from utils import convert_bert

    def check(folder: Path, out: Path | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert convert_bert.main([str(folder), str(out or tmp_path / "out")]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return check
