"""Settings and tiny inputs that the tests share."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported: no test waits for a network
os.environ["OMP_NUM_THREADS"] = (
    "1"  # of processes that tests start, too: with more of them than cores, waiting threads burn time
)

import cmu_pickles  # noqa: E402
import google_checkpoints  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402

import run  # noqa: E402
from data import TextPre  # noqa: E402
from utils import convert_bert  # noqa: E402

torch.set_num_threads(1)  # the models here are too small to share out


class Workplace:
    """A folder with a tiny corpus and encoder, from where run.py is called."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.features = tiny.write_features(folder / "data" / "unaligned.pkl")
        self.bert = tiny.write_bert(folder / "bert")

    def command(self, *words: str) -> list[str]:
        flags = {"--dataPath": self.features, "--bert": self.bert, "--gpu_ids": -1, "--seeds": 1, "--max_epochs": 2}
        for flag, value in flags.items():
            if flag not in words:
                words += (flag, str(value))
        return [str(word) for word in words]

    def run(self, *words: str) -> int:
        return run.main(self.command("--datasetName", "mosi", "--set", "batch_size=4", "update_epochs=2", *words))

    def written(self) -> set[str]:
        """All files below the workplace, but those that the tests put there and finished caches of good feature files."""
        files = {path for path in self.folder.rglob("*") if path.is_file()} - self.inputs
        caches = {path.parent for path in files if path.name == "meta.json" and path.parent.parent.suffix == ".store"}
        return {str(path.relative_to(self.folder)) for path in files if not caches & set(path.parents)}

    def remember_inputs(self) -> None:
        self.inputs = {path for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    place = Workplace(tmp_path)
    place.remember_inputs()
    return place


@pytest.fixture
def fails(workplace, capsys):
    """Runs a command that must end with one line of complaint, status 2 and no file written. Returns the line."""

    def check(*words: str) -> str:
        workplace.remember_inputs()
        capsys.readouterr()
        assert workplace.run(*words) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
        assert captured.out == ""
        assert not workplace.written(), "a run that was refused wrote files"
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
    """Writes the label table of own clips: LABEL_ROWS, and the rows given."""

    def write(*rows: str) -> Path:
        path = tmp_path / "label.csv"
        path.write_text(LABEL_HEADER + "\n".join([*LABEL_ROWS, *rows]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def text_pre_bert(tmp_path_factory) -> Path:
    """A text encoder that knows the words of cmu_pickles."""
    folder = tiny.write_bert(tmp_path_factory.mktemp("bert"), vocab_size=len(cmu_pickles.VOCABULARY))
    (folder / "vocab.txt").write_text("\n".join(cmu_pickles.VOCABULARY) + "\n")
    return folder


@pytest.fixture
def prepare(tmp_path, text_pre_bert, capsys):
    """Writes a CMU pickle and runs TextPre.py. Returns the status, what was made (or None) and what was printed."""

    def make(content: object, *words: str):
        tiny.write_features(tmp_path / "cmu.pkl", content)
        output = tmp_path / "out" / "features.pkl"
        flags = ["--features", tmp_path / "cmu.pkl", "--output", output, "--bert", text_pre_bert, *words]
        status = TextPre.main([str(flag) for flag in flags])
        made = pickle.loads(output.read_bytes()) if output.exists() else None
        return status, made, "".join(capsys.readouterr())

    return make


@pytest.fixture(scope="module")
def sound_google_checkpoint(tmp_path_factory) -> Path:
    return google_checkpoints.write_checkpoint(tmp_path_factory.mktemp("sound") / "checkpoint")


@pytest.fixture
def google_checkpoint(sound_google_checkpoint, tmp_path) -> Path:
    """A sound one, to be damaged."""
    return shutil.copytree(sound_google_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def refused(tmp_path, capsys):
    """A conversion that must end with one line of complaint, status 2 and nothing written. Returns the line."""

    def check(folder: Path, out: Path | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert convert_bert.main([str(folder), str(out or tmp_path / "out")]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return check
