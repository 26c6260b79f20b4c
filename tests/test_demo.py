"""The demo corpus is reproducible, valid, and hard enough to need all three modalities."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from run_files import checkpoint
from safetensors.torch import load_file

import run
from benchmarks import drawing
from config.command_line import parse_arguments
from config.config_regression import DATASETS
from config.inputs import find_bert
from data import demo
from data.schema import SPLITS, FeatureFile, read_feature_file
from models.pretrained_bert import load_bert, load_tokenizer
from trains.runs.open import open_checkpoint
from utils.safe_pickle import load_pickle

MODALITIES = ("text", "audio", "vision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root") / "DEMO"
    demo.ensure_demo(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> FeatureFile:
    return read_feature_file(folder / "Processed" / "unaligned.pkl", DATASETS["demo"], aligned=False)


def test_corpus_and_bert_are_reproducible(folder: Path, tmp_path: Path):
    demo.make_demo(tmp_path / "again")
    first, again = (load_pickle(home / "Processed" / "unaligned.pkl")[0] for home in (folder, tmp_path / "again"))
    assert first.keys() == again.keys() == set(SPLITS)
    for split in SPLITS:
        assert first[split].keys() == again[split].keys()
        for key, values in first[split].items():
            np.testing.assert_array_equal(values, again[split][key], err_msg=f"{split} {key}")
    weights, weights_again = (load_file(home / "bert" / "model.safetensors") for home in (folder, tmp_path / "again"))
    assert weights.keys() == weights_again.keys()
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)


def test_global_random_streams_are_untouched(tmp_path: Path):
    def state() -> tuple:
        return random.getstate(), str(np.random.get_state(legacy=False)), torch.get_rng_state().tolist()

    torch.manual_seed(1)
    before = state()
    demo.make_demo(tmp_path / "DEMO")
    assert state() == before


def test_existing_corpus_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(demo, "make_demo")
    demo.ensure_demo(folder)


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_write_bert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.ensure_demo(tmp_path / "DEMO")
    assert list(tmp_path.iterdir()) == []


def test_other_folder_of_that_name_is_left_alone(tmp_path: Path):
    (tmp_path / "DEMO").mkdir()
    (tmp_path / "DEMO" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="DEMO"):
        demo.ensure_demo(tmp_path / "DEMO")
    assert [path.name for path in tmp_path.iterdir()] == ["DEMO"]
    assert (tmp_path / "DEMO" / "notes.txt").read_text() == "mine"


def test_file_has_the_official_layout(corpus: FeatureFile):
    assert {name: len(split) for name, split in corpus.splits.items()} == demo.CLIPS
    for split in corpus.splits.values():
        assert set(split.labels) == {"fusion", *MODALITIES}
        assert len(set(split.ids)) == len(split)
        assert split.text_bert.dtype == np.int64 and split.text_bert.shape[2] == DATASETS["demo"].text_length
        for lengths in (split.text_lengths, split.audio_lengths, split.vision_lengths):
            assert len(set(lengths.tolist())) > 5


def test_splits_share_no_speaker(corpus: FeatureFile):
    videos = [{clip.split("$_$")[0] for clip in split.ids} for split in corpus.splits.values()]
    assert len(set.union(*videos)) == sum(map(len, videos))


def test_tokenizer_of_the_bert_reproduces_text_bert(folder: Path, corpus: FeatureFile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SELF_MM_DATA", str(folder.parent))
    source = find_bert(None, DATASETS["demo"])
    tokenizer = load_tokenizer(source)
    assert load_bert(source).config.vocab_size == len(tokenizer)
    for split in corpus.splits.values():
        tokens = tokenizer(split.raw_text, padding="max_length", max_length=demo.TOKENS, return_tensors="np")
        for row, key in enumerate(("input_ids", "attention_mask", "token_type_ids")):
            np.testing.assert_array_equal(split.text_bert[:, row], tokens[key])
        assert tokenizer.unk_token_id not in split.text_bert[:, 0]


def test_unimodal_labels_mostly_agree_with_the_label(corpus: FeatureFile):
    for split in corpus.splits.values():
        fusion = split.labels["fusion"]
        for task in MODALITIES:
            assert np.corrcoef(split.labels[task], fusion)[0, 1] > 0.6, task
            assert 0.03 < (split.labels[task] * fusion < 0).mean() < 0.3, task


def test_two_modalities_do_not_determine_the_label(corpus: FeatureFile):
    """Even if their hidden sentiments are known, without that of the third."""
    for left_out in MODALITIES:
        two = [task for task in MODALITIES if task != left_out]
        inputs, labels = {}, {}
        for name in ("train", "test"):
            split = corpus.splits[name].labels
            inputs[name] = np.stack([split[task] for task in two] + [np.ones_like(split["fusion"])], axis=1)
            labels[name] = split["fusion"]
        best = np.linalg.lstsq(inputs["train"], labels["train"])[0]
        assert np.abs(inputs["test"] @ best - labels["test"]).mean() > 0.25, left_out
    everything = sum(demo.SHARES[task] * corpus.splits["test"].labels[task] for task in MODALITIES)
    assert np.abs(everything - corpus.splits["test"].labels["fusion"]).max() < 0.1 + 1e-6


def test_training_learns_the_label_and_each_modality(folder: Path, tmp_path: Path, monkeypatch, capsys):
    """The fusion score, and each modality against labels unseen in training, are far better than guessing the mean."""
    monkeypatch.setenv("SELF_MM_DATA", str(folder.parent))
    monkeypatch.chdir(tmp_path)
    flags = ["--seeds", "1111", "--max_epochs", "12", "--gpu_ids", "-1", "--save_labels"]
    assert run.main(["--datasetName", "demo", *flags]) == 0
    folder = checkpoint(1111, dataset="demo")
    experiment, model = open_checkpoint(folder, parse_arguments([]), torch.device("cpu"))
    metrics, _ = experiment.test(model)
    labels, seen = experiment.store.splits["test"].labels, experiment.store.splits["train"].labels
    assert metrics["Corr"] > 0.9
    for task, limit in (("fusion", 0.45), ("text", 0.65), ("audio", 0.7), ("vision", 0.7)):
        guessing = np.abs(labels[task] - seen[task].mean()).mean()
        assert metrics["MAE" if task == "fusion" else f"{task}_MAE"] < limit * guessing, task
    # The generated labels of audio and vision are nearer to the hidden ones than copies, and much more than by chance.
    (history,) = Path("results/results").glob("*/1111-history.csv")
    last = pd.read_csv(history).iloc[-1]
    for task in ("audio", "vision"):
        assert last[f"{task}_label_Corr"] > last[f"{task}_copied_Corr"] > last[f"{task}_shuffled_Corr"], task
    drawn = {path.name for path in history.parent.iterdir()}
    assert drawing.main([str(history.parent)]) == 0 and "in which the seeds trained: 1" in capsys.readouterr().out
    assert drawn >= {"report.html", "curves.png", "labels.png", "label_quality.png", "predictions.png", "confusion.png"}
