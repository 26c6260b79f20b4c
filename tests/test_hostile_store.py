"""A store whose files contradict each other is rebuilt: no traceback, no wait, no wrong value."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny

from config.config_regression import DATASETS
from data.store import FeatureStore, open_store


def opened(path: Path) -> FeatureStore:
    return open_store(path, DATASETS["mosi"], aligned=False, tokenizer=None, cache_dir=None)


def content(store: FeatureStore) -> list:
    return [
        (split.ids, split.raw_text, {task: values.tolist() for task, values in split.labels.items()})
        + tuple((part.values.tolist(), part.lengths.tolist()) for part in (split.text, split.audio, split.vision))
        for split in store.splits.values()
    ]


def meta(change):
    def apply(folder: Path) -> None:
        content = json.loads((folder / "meta.json").read_text())
        change(content)
        (folder / "meta.json").write_text(json.dumps(content))

    return apply


def array(name: str, change):
    def apply(folder: Path) -> None:
        path = folder / "train" / name
        np.save(path, change(np.load(path)))

    return apply


def train(change):
    return meta(lambda content: change(content["splits"]["train"]))


def shifted(offsets: np.ndarray) -> np.ndarray:
    """Increasing only if differences overflow."""
    offsets = offsets.copy()
    offsets[1:3] = 2**63 - 1, -(2**63)
    return offsets


def pipe(name: str):
    def apply(folder: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes in folders")
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return apply


def test_the_notes_of_a_store_move_no_terminal_and_forge_no_line(tmp_path):
    path = tiny.write_features(tmp_path / "unaligned.pkl")
    opened(path)
    (folder,) = path.with_name(f"{path.name}.store").iterdir()
    meta(lambda content: content.update(notes=["x\x1b[2J\nerror: forged"]))(folder)
    assert opened(path).notes == ["x?[2J?error: forged"]


HOSTILE = {
    "fewer ids": train(lambda split: split["ids"].pop()),
    "more texts": train(lambda split: split["raw_text"].append("x")),
    "ids that are numbers": train(lambda split: split.update(ids=list(range(len(split["ids"]))))),
    "ids that no file can hold": train(lambda split: split["ids"].__setitem__(0, "\ud800")),
    "fewer labels": train(lambda split: split["labels"]["fusion"].pop()),
    "labels that are no numbers": train(lambda split: split["labels"]["fusion"].__setitem__(0, "x")),
    "labels that are not finite": train(lambda split: split["labels"]["fusion"].__setitem__(0, float("nan"))),
    "ids by number": train(lambda split: split.update(ids={str(n): clip for n, clip in enumerate(split["ids"])})),
    "no texts": train(lambda split: split.update(raw_text=[])),
    "no labels": train(lambda split: split["labels"].clear()),
    "no split": meta(lambda content: content["splits"].pop("test")),
    "unknown key": meta(lambda content: content.update(more=1)),
    "notes that are numbers": meta(lambda content: content.update(notes=[1])),
    "the other alignment": meta(lambda content: content.update(aligned=True)),
    "extractors that are a list": meta(lambda content: content.update(extractors=[1])),
    "a list": lambda folder: (folder / "meta.json").write_text("[]"),
    "nested too deep": lambda folder: (folder / "meta.json").write_text("[" * 100_000),
    "fewer frames": array("audio.npy", lambda values: values[:-1]),
    "one dimension": array("audio.npy", lambda values: values[:, 0]),
    "another width": array("vision.npy", lambda values: values[:, :-1]),
    "another type": array("audio.npy", lambda values: values.astype(np.float64)),
    "objects": array("audio.npy", lambda values: np.array([None, 1])),
    "negative token ids": array("text.npy", lambda values: -values),
    "three columns of text": array("text.npy", lambda values: np.repeat(values, 2, axis=1)[:, :3]),
    "fewer clips": array("text_offsets.npy", lambda offsets: np.delete(offsets, 1)),
    "decreasing offsets": array("audio_offsets.npy", lambda offsets: np.r_[0, offsets[-2:0:-1], offsets[-1]]),
    "overflowing offsets": array("audio_offsets.npy", shifted),
    "offsets with fractions": array("audio_offsets.npy", lambda offsets: offsets.astype(float)),
    "no offsets": array("audio_offsets.npy", lambda offsets: offsets[:0]),
    "a pipe": pipe("train/audio.npy"),
    "a pipe of offsets": pipe("test/text_offsets.npy"),
    "a pipe of labels": pipe("meta.json"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_store_that_contradicts_itself_is_rebuilt(tmp_path, capsys, attack):
    path = tiny.write_features(tmp_path / "unaligned.pkl")
    before = content(opened(path))
    assert capsys.readouterr().out == ""
    (folder,) = path.with_name(f"{path.name}.store").iterdir()
    HOSTILE[attack](folder)
    assert content(opened(path)) == before
    assert "rebuilding" in capsys.readouterr().out
    assert content(opened(path)) == before
    assert capsys.readouterr().out == ""
