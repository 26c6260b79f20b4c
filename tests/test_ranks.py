"""Training over several ranks gives one process's results, ends with one report, and resumes with any number of ranks."""

import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from conftest import Workplace
from ranks import fork_ranks, start_torchrun
from run_files import checkpoint, state
from safetensors.torch import load_file, save_file

import run
from config.config_regression import DATASETS, make_config
from data.load_data import ClipDataset, evaluation_windows, training_windows
from data.store import open_store
from models.self_mm import SelfMM
from trains.self_mm import encode_texts, evaluate, fit
from trains.training import Training
from utils.errors import UserError
from utils.metrics import METRICS
from utils.ranks import ALONE, Ranks, join_ranks

CPU = torch.device("cpu")
NO_DROPOUT = {f"post_{name}_dropout": 0.0 for name in ("fusion", "text", "audio", "video")}


def trained(folder: Path, ranks: Ranks, **settings) -> dict[str, torch.Tensor]:
    """The results of three epochs: weights, labels, and scores on the validation split."""
    config = make_config("mosi", batch_size=4, max_epochs=3, **NO_DROPOUT, **settings)
    store = open_store(tiny.write_features(folder / "unaligned.pkl"), DATASETS["mosi"], False, None, None)
    clips = {name: ClipDataset(split, CPU, config.max_clips_per_pass, ranks) for name, split in store.splits.items()}
    torch.manual_seed(0)
    bert = tiny.make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert)
    if not config.use_finetune:
        for split in clips.values():
            encode_texts(model, evaluation_windows(split))
    windows, valid = training_windows(clips["train"], config, seed=1), evaluation_windows(clips["valid"])
    training = Training(model, windows, config)
    for _ in fit(training, windows, valid, config, METRICS["mosi"]):
        pass
    assert not training.loss.requires_grad, "the epoch's loss would keep its windows' graphs in memory"
    _, scores = evaluate(model, valid, METRICS["mosi"])
    results = {**model.state_dict(), **training.ulgm.state_dict(), "loss": training.loss}
    results |= {f"scores.{task}": torch.from_numpy(values) for task, values in scores.items()}
    return {name: tensor.clone().contiguous() for name, tensor in results.items()}


@pytest.mark.parametrize(
    "settings",
    [
        # 21 clips: a window of 20, and one of a single clip, of which most ranks have no share.
        {"update_epochs": 5, "keep_last_window": True},
        {"update_epochs": 2, "tasks": "MT", "max_clips_per_pass": 2},
        {"update_epochs": 3, "use_finetune": False},
    ],
    ids=["a window of one clip", "unused heads", "frozen encoder"],
)
def test_three_ranks_learn_what_one_process_learns(settings, tmp_path):
    def rank(number: int) -> None:
        (tmp_path / str(number)).mkdir()
        save_file(trained(tmp_path / str(number), join_ranks(), **settings), tmp_path / f"{number}.safetensors")

    assert fork_ranks(3, rank) == [0, 0, 0]
    alone, *ranks = trained(tmp_path, ALONE, **settings), *(load_file(tmp_path / f"{n}.safetensors") for n in range(3))
    for name, tensor in alone.items():
        torch.testing.assert_close(ranks[0][name], tensor, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(ranks[0][name], ranks[1][name]) and torch.equal(ranks[0][name], ranks[2][name]), name


def test_the_ranks_shares_cover_every_clip_once():
    for clips in (0, 1, 5, 128):
        for size in (1, 2, 3, 4, 7):
            shares = [Ranks(rank, size).share(clips) for rank in range(size)]
            assert [clip for start, end in shares for clip in range(start, end)] == list(range(clips))
            sizes = [end - start for start, end in shares]
            assert max(sizes) - min(sizes) <= 1


def test_each_rank_has_its_own_reproducible_dropout_stream(tmp_path):
    def rank(number: int) -> None:
        ranks = join_ranks()
        drawn = []
        for epoch in (1, 2, 1):
            ranks.seed_dropout(1111, epoch, 0)
            drawn.append(torch.rand(4))
        assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
        apart = ranks.gather({"drawn": drawn[0][None]}, 2)["drawn"]
        assert not torch.equal(apart[0], apart[1])

    assert fork_ranks(2, rank) == [0, 0]


FLAGS = ["--max_epochs", "6", "--threads", "1"]
SETTINGS = ["--set", *(f"{key}={value}" for key, value in NO_DROPOUT.items()), "early_stop=9999"]


@pytest.fixture
def place(workplace) -> Workplace:
    tiny.write_bert(workplace.bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return workplace


@pytest.fixture
def uninterrupted(place) -> dict[str, torch.Tensor]:
    """The checkpoint of one process that ran without interruption."""
    assert place.run(*FLAGS, *SETTINGS, "--model_save_dir", "uninterrupted") == 0
    Path("results/results/normals/mosi-regression-seeds.csv").unlink()
    return load_file(checkpoint(models=Path("uninterrupted")) / "model.safetensors")


def assert_same_checkpoint(expected: dict[str, torch.Tensor]) -> None:
    found = load_file(checkpoint() / "model.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_a_signal_to_one_rank_stops_all_after_the_same_window_and_another_number_of_ranks_resumes(
    place, uninterrupted, monkeypatch
):
    def interrupted(rank: int) -> int:
        original, calls = SelfMM.forward, []

        def counted(*arguments):
            calls.append(1)
            if rank == 1 and len(calls) == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments)

        SelfMM.forward = counted
        return place.run(*FLAGS, *SETTINGS)

    assert fork_ranks(2, interrupted) == [143, 143]
    assert state().exists() and not Path("results/results/normals/mosi-regression-seeds.csv").exists()
    assert fork_ranks(3, lambda rank: place.run(*FLAGS, *SETTINGS, "--resume")) == [0, 0, 0]
    assert_same_checkpoint(uninterrupted)
    rows = pd.read_csv("results/results/normals/mosi-regression-seeds.csv")
    assert len(rows) == 1 and rows["ranks"].tolist() == [3]
    log = Path("logs/self_mm-mosi.log").read_text()
    assert "ranks 2, now 3" in log and log.count("SIGTERM: stopped after") == 1


def rank_of(process: Path) -> str:
    variables = (process / "environ").read_bytes().split(b"\0")
    return next((word[5:].decode() for word in variables if word.startswith(b"RANK=")), "")


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks through /proc")
def test_a_killed_rank_ends_the_run_with_one_line_and_one_process_resumes(place):
    flags = place.command("--datasetName", "mosi", "--max_epochs", "12", "--save_every", "0", *SETTINGS, "batch_size=4")
    process = start_torchrun(2, *flags, cwd=place.folder)
    while not state().exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (victim,) = [child for child in children if rank_of(Path(f"/proc/{child}")) == "1"]
    os.kill(int(victim), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(r"another rank of this run is gone \(.*\); --resume .* any number of ranks", line)
    assert run.main([*flags, "--resume"]) == 0
    row = pd.read_csv("results/results/normals/mosi-regression-seeds.csv").iloc[0]
    assert row["epochs"] == 12 and row["ranks"] == 1
    assert "resumes after" in Path("logs/self_mm-mosi.log").read_text()


def test_an_error_of_all_ranks_is_reported_once(place, capfd):
    assert fork_ranks(3, lambda rank: place.run("--dataPath", "nowhere.pkl")) == [2, 2, 2]
    assert fork_ranks(2, lambda rank: place.run("--jobs", "2")) == [2, 2]
    lines = errors(capfd)
    assert len(lines) == 2
    assert "nowhere.pkl" in lines[0] and "leave out --test_only, --is_tune and --jobs" in lines[1]


@pytest.mark.parametrize("words", [["learning_rate_other=0.05"], ["batch_size=8"], ["H=3", "--max_epochs", "1"]])
def test_ranks_with_different_settings_are_refused(place, capfd, words):
    assert fork_ranks(2, lambda rank: place.run(*FLAGS, *SETTINGS, *(words if rank == 1 else []))) == [2, 2]
    (line,) = errors(capfd)
    assert "rank 1 differs from rank 0 (config " in line


def test_a_wrong_flag_is_reported_once(place, capfd):
    assert fork_ranks(3, lambda rank: place.run("--nonsense")) == [2, 2, 2]
    assert len(errors(capfd)) == 1


def test_a_signal_while_rank_zero_tests_is_reported_once(place, capfd):
    from trains.runs.experiment import Experiment

    def rank(number: int) -> int:
        test = Experiment.test

        def stopped(self, model):
            os.kill(os.getpid(), signal.SIGTERM)
            return test(self, model)

        Experiment.test = stopped
        return place.run(*FLAGS, *SETTINGS, "--seeds", "1", "2")

    assert fork_ranks(2, rank)[0] == 143
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error: ", "stopped by"))]
    assert len(lines) == 1 and lines[0].startswith("stopped by SIGTERM; to continue: ")


def errors(capfd) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]


def test_only_rank_zero_writes(place):
    assert fork_ranks(2, lambda rank: place.run(*FLAGS, *SETTINGS)) == [0, 0]
    log = Path("logs/self_mm-mosi.log").read_text()
    assert log.count("epoch  1 ") == 1 and log.count("test, 1 seed") == 1
    assert len(pd.read_csv("results/results/normals/mosi-regression-seeds.csv")) == 1


def test_torchrun_with_one_rank_is_an_ordinary_run(monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert join_ranks() is ALONE


def test_a_rank_reports_if_the_store_died_with_the_first_machine():
    class DeadStore:
        def add(self, key: str, amount: int) -> int:
            raise RuntimeError("Connection reset by peer")

    for rank in (1, 2, 7):
        with pytest.raises(UserError, match="gone"), Ranks(rank, 8, rank % 4, DeadStore()).one_rank_reports():
            raise UserError("another rank is gone")
