"""Settings and tiny inputs that the tests share."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported: no test waits for a network
os.environ["OMP_NUM_THREADS"] = (
    "1"  # of processes that tests start, too: with more of them than cores, waiting threads burn time
)

import pytest  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402

import run  # noqa: E402

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
