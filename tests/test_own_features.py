"""The user's own data: feature files built from arrays, transcripts beside clips, and flags that DataPre.py refuses."""

import importlib
import pickle
import re
import sys

import numpy as np
import pandas as pd
import pytest
import tiny

from config.config_regression import DATASETS
from data import feature_file
from data.builders.assemble import padded_length
from data.schema import read_feature_file
from data.store import cut_text
from utils.errors import UserError
from utils.files import replacing

MOSI = DATASETS["mosi"]


@pytest.fixture
def parts(tmp_path):
    """An array for each clip of LABEL_ROWS and modality, in .npy and .npz files."""
    random = np.random.default_rng(0)
    for key, width in (("audio", 6), ("vision", 3)):
        for number, name in enumerate(("001/0001", "001/0002", "002/1", "003/1")):
            file = tmp_path / "parts" / key / name
            file.parent.mkdir(parents=True, exist_ok=True)
            array = random.normal(size=(number + 2, width))
            if number % 2:
                np.savez(f"{file}.npz", whatever=array)
            else:
                np.save(f"{file}.npy", array)
    return tmp_path / "parts"


def build(tmp_path, path, parts, *argv) -> int:
    flags = ["BUILD", tmp_path / "own.pkl", "--labels", path, "--parts", parts, *argv]
    return feature_file.main([str(flag) for flag in flags])


def test_folders_and_inputs_are_not_overwritten(tmp_path, label_table, parts, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    path = label_table()
    for output in (tmp_path / "mine", path, "", "."):
        flags = ["BUILD", output, "--labels", path, "--parts", parts]
        assert feature_file.main([str(flag) for flag in flags]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years" and path.read_text().startswith("video_id")
    with pytest.raises(UserError, match="is a folder"), replacing(tmp_path / "mine") as work:
        work.write_text("a file")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_padded_length_is_the_released_rule():
    lengths = [3, 5, 10, 4]
    assert padded_length(lengths) == int(np.mean(lengths) + 3 * np.std(lengths))
    assert padded_length([1]) == 1
    assert cut_text(np.array([2, 7, 8, 9, 3]), 4).tolist() == [2, 7, 8, 3]


def test_run_trains_on_a_file_built_from_parts(tmp_path, label_table, parts, capsys, monkeypatch):
    assert build(tmp_path, label_table(), parts, "--vision_length", 4) == 0
    printed = capsys.readouterr().out
    file = read_feature_file(tmp_path / "own.pkl", MOSI, aligned=False)
    train = file.splits["train"]
    assert train.raw_text == ["so good, really", "bad"] and train.text_bert is None
    assert train.audio_lengths.tolist() == [2, 3] and train.vision.shape == (2, 4, 3)
    assert file.splits["test"].vision_lengths.tolist() == [4]  # of five frames
    second = np.load(parts / "audio" / "001" / "0002.npz")["whatever"]
    assert np.array_equal(train.audio[1, :3], second.astype(np.float32)) and not train.audio[1, 3:].any()
    assert set(train.labels) == {"fusion", "text", "vision"}  # one clip has no label_A
    assert file.extractors["audio"] == {
        "name": "own",
        "version": "",
        "width": 6,
        "settings": {},
        "length": train.audio.shape[1],
    }

    import run

    monkeypatch.chdir(tmp_path)
    words = "so good , really bad fine well".split()
    bert = tiny.write_bert(tmp_path / "bert", vocab_size=5 + len(words))
    (bert / "vocab.txt").write_text("\n".join([*tiny.VOCABULARY[:5], *words]) + "\n")
    (command,) = re.findall("train on it: python run.py (.*)", printed)
    flags = f"--bert {bert} --seeds 1 --max_epochs 1 --gpu_ids -1 --no_figures"
    assert run.main([*command.split(), *flags.split()]) == 0


def test_clips_with_unusable_parts_are_left_out(tmp_path, label_table, parts, capsys):
    for name in ("flat", "wide", "odd", "none"):
        np.save(parts / "vision" / "001" / f"{name}.npy", np.ones((2, 3)))
        np.save(parts / "audio" / "001" / f"{name}.npy", np.ones((2, 6)))
    np.save(parts / "audio" / "001" / "flat.npy", np.ones(6))
    np.save(parts / "audio" / "001" / "wide.npy", np.ones((2, 7)))
    (parts / "audio" / "001" / "odd.npy").write_bytes(pickle.dumps([1, 2]))
    (parts / "audio" / "001" / "none.npy").unlink()
    path = label_table(
        *(f"001,{name},a,1,,train,,," for name in ("flat", "wide", "odd", "none")), "001,0003,a,9,,train,,,"
    )
    assert build(tmp_path, path, parts) == 2
    assert "5 of 9 clips were left out" in capsys.readouterr().err
    reasons = pd.read_csv(tmp_path / "own.errors.csv").set_index("id")["reason"]
    assert "(6,)" in reasons["001$_$flat"] and "7 wide" in reasons["001$_$wide"]
    assert "odd.npy" in reasons["001$_$odd"] and "No such file" in reasons["001$_$none"]
    assert len(read_feature_file(tmp_path / "own.pkl", MOSI, aligned=False).splits["train"]) == 2


def test_an_empty_split_keeps_the_previous_file(tmp_path, label_table, parts, capsys):
    assert build(tmp_path, label_table(), parts) == 0
    before = (tmp_path / "own.pkl").read_bytes()
    (parts / "audio" / "002" / "1.npy").unlink()
    assert build(tmp_path, label_table(), parts) == 2
    assert "no clip of valid" in capsys.readouterr().err
    assert (tmp_path / "own.pkl").read_bytes() == before


@pytest.mark.parametrize(
    "program", ["data.DataPre", "data.TextPre", "data.feature_file", "utils.convert_bert", "predict"]
)
def test_help_exits_with_status_0(program, capsys):
    for words in (["--help"], ["-h"]):
        with pytest.raises(SystemExit) as exit_:
            importlib.import_module(program).main(words)
        assert exit_.value.code == 0 and "usage: " in capsys.readouterr().out


def test_contradictory_flags_are_refused(tmp_path, capsys):
    from data import DataPre

    for words in (
        ["--vision", "none", "--openface_csv", "x"],
        ["--vision", "mediapipe", "--openface2Path", "x"],
        ["--sample_rate", "8000", "--vision", "none"],
        ["--fps", "0", "--vision", "none"],
        [],
    ):
        assert DataPre.main(["--data_dir", str(tmp_path / "nowhere"), "--language", "en", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert DataPre.main(["--data_dir", str(tmp_path / "nowhere"), "--language", "en", "--vision", "none"]) == 2
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("package, words", [("librosa", ["none"]), ("mediapipe", ["mediapipe"])])
def test_a_missing_extraction_package_is_named_with_its_requirements(
    label_table, tmp_path, monkeypatch, capsys, package, words
):
    from data import DataPre

    monkeypatch.setitem(sys.modules, package, None)  # import fails
    if package != "librosa":
        monkeypatch.setattr("data.extractors.audio.LibrosaAudio.version", "1")
    label_table()
    bert = tiny.write_bert(tmp_path / "bert")
    capsys.readouterr()
    flags = [
        "--data_dir",
        tmp_path,
        "--language",
        "en",
        "--bert",
        bert,
        "--vision",
        *words,
    ]
    assert DataPre.main([str(flag) for flag in flags]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"error: {package} ") and complaint.count("\n") == 1
    assert "pip install -r requirements" in complaint
