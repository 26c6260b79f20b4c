"""A corpus of good and bad clips, the feature file DataPre.py makes from it, and a model trained on that file."""

import contextlib
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tiny

from data.extractors.audio import compile_librosa
from features import clips
from features.clips import ODD, TEXT, data_pre

MISSING = [
    name for name in ("librosa", "av", "mediapipe", "pebble", "skimage") if importlib.util.find_spec(name) is None
]


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    if MISSING:
        pytest.skip(f"{', '.join(MISSING)} not installed: make test-features, or requirements/features.txt")
    compile_librosa()  # before any test calls librosa itself


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, packages) -> Path:
    """Good and bad clips, and a tiny BERT."""
    folder = tmp_path_factory.mktemp("corpus")
    raw = folder / "Raw"
    rows = []
    for number, (mode, label) in enumerate(
        [("train", 2.0), ("train", -2.0), ("valid", 1.0), ("valid", -1.0), ("test", -3.0)]
    ):
        sound = clips.say("well it was a film", 150 + 10 * number, 30 + 10 * number)
        clips.write_clip(raw / "007" / f"000{number}.mp4", sound)
        rows.append(("007", f"000{number}", f"word{number} " * (number + 1), label, mode))
    voice = clips.say("and so on", 200)
    clips.write_clip(raw / ODD / f"{ODD}.mp4", voice)
    clips.write_clip(raw / "hard" / "turned.mp4", voice, turned=1)
    clips.write_clip(raw / "hard" / "upright.mp4", voice)
    clips.write_clip(raw / "hard" / "short.mp4", voice, seconds=0.1)
    clips.write_clip(raw / "hard" / "silent.mp4", None, seconds=0.5)
    clips.write_clip(raw / "hard" / "faceless.mp4", voice, image=clips.wall)
    whole = (raw / "hard" / "upright.mp4").read_bytes()
    (raw / "hard" / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    rows.append((ODD, ODD, TEXT, 0.4, "train"))
    names = ("turned", "upright", "short", "silent", "faceless", "broken", "nowhere")
    rows += [("hard", name, TEXT, 0.4, "train") for name in names]
    rows.append(("hard", "unlabelled", TEXT, "", "train"))
    tiny.write_bert(folder / "bert")
    return clips.write_table(folder, rows)


@pytest.fixture(scope="session")
def prepared(corpus) -> Path:
    """The feature file of the corpus. Long sequences are cut."""
    assert data_pre(corpus, "--jobs", 2, "--audio_length", 60, "--vision_length", 4, "--text_length", 5) == 2
    return corpus / "Processed" / "features.pkl"


@pytest.fixture(scope="session")
def checkpoint(prepared, corpus, tmp_path_factory) -> Path:
    """A model that run.py trained on the feature file."""
    import run

    with contextlib.chdir(folder := tmp_path_factory.mktemp("trained")):
        flags = ["--dataPath", prepared, "--bert", corpus / "bert", "--seeds", 1, "--max_epochs", 1, "--gpu_ids", -1]
        flags += ["--no_figures", "--set", "keep_last_window=True"]  # six clips do not fill a window
        assert run.main([str(flag) for flag in flags]) == 0
        return next(path for path in folder.glob("results/models/*") if path.is_dir())


@pytest.fixture
def altered(checkpoint, tmp_path):
    """Copies the checkpoint, with changed metadata about its training features."""

    def alter(change) -> Path:
        shutil.copytree(checkpoint, folder := tmp_path / "altered")
        settings = json.loads((folder / "config.json").read_text())
        change(settings["trained_on"])
        (folder / "config.json").write_text(json.dumps(settings))
        return folder

    return alter
