"""Reading, checking and caching of feature files."""

import io
import os
import pickle
import shutil
import time

import numpy as np
import pytest
import tiny
import torch
from tqdm import tqdm

from config.config_regression import DATASETS, make_config
from data import feature_file, store
from data.load_data import ClipDataset, training_windows
from data.schema import read_feature_file
from data.store import open_store
from models.pretrained_bert import load_tokenizer
from utils import files
from utils.errors import UserError, translate
from utils.safe_pickle import load_pickle

MOSI = DATASETS["mosi"]


@pytest.fixture
def path(tmp_path):
    return tiny.write_features(tmp_path / "unaligned.pkl")


def opened(path, **changes):
    return open_store(
        **{"path": path, "dataset": MOSI, "aligned": False, "tokenizer": None, "cache_dir": None, **changes}
    )


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    features = tiny.make_features()
    features["train"]["extra"] = {
        "a": {1, 2},
        "b": (None, True, 1.5, b"x"),
        "c": np.float32(2.5),
        "d": np.array(["x"], object),
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(features, protocol=protocol))
    content, sha1 = load_pickle(tmp_path / "f.pkl")
    assert len(sha1) == 40
    for key, value in features["train"].items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(content["train"][key], value)
            assert content["train"][key].dtype == value.dtype
    extra = content["train"]["extra"]
    assert (
        extra["a"] == {1, 2}
        and extra["b"] == (None, True, 1.5, b"x")
        and extra["c"] == 2.5
        and extra["d"].tolist() == ["x"]
    )


def test_pickles_of_numpy_1_and_2_are_read(tmp_path):
    """They name different modules for rebuilding an array."""
    written = pickle.dumps(np.arange(6.0).reshape(2, 3), protocol=2)
    assert b"numpy._core.multiarray" in written or b"numpy.core.multiarray" in written
    for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        renamed = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray").replace(
            b"numpy.core.multiarray", module
        )
        (tmp_path / "f.pkl").write_bytes(renamed)
        np.testing.assert_array_equal(load_pickle(tmp_path / "f.pkl")[0], np.arange(6.0).reshape(2, 3))


def test_store_keeps_only_real_frames_and_tokens(path):
    features = tiny.make_features()
    opened_store = opened(path)
    for name, content in features.items():
        split = opened_store.splits[name]
        assert split.ids == content["id"].tolist() and split.raw_text == content["raw_text"].tolist()
        np.testing.assert_array_equal(split.labels["fusion"], content["regression_labels"])
        for clip in range(len(split)):
            for key in ("audio", "vision"):
                length = content[f"{key}_lengths"][clip]
                np.testing.assert_array_equal(getattr(split, key)[clip], content[key][clip, :length])
            length = content["text_bert"][clip, 1].sum()
            np.testing.assert_array_equal(split.text[clip], content["text_bert"][clip, [0, 2], :length].T)


def test_float_token_ids_read_as_whole_numbers(tmp_path, path):
    features = tiny.make_features()
    for split in features.values():
        split["text_bert"] = split["text_bert"].astype(np.float32)
    floats = tiny.write_features(tmp_path / "floats.pkl", features)
    for clip in range(5):
        np.testing.assert_array_equal(
            opened(floats).splits["train"].text[clip], opened(path).splits["train"].text[clip]
        )


def test_warm_start_does_not_read_the_pickle(path, monkeypatch):
    first = opened(path)
    monkeypatch.setattr(store, "read_feature_file", lambda *_: pytest.fail("the pickle was read again"))
    second = opened(path)
    assert second.sha1 == first.sha1 and second.splits["test"].ids == first.splits["test"].ids


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_unreadable_store_is_rebuilt(path, capsys, damage):
    before = opened(path).splits["train"].audio.values.clone()
    file = next(path.parent.glob("*.store/*/train/audio.npy"))
    file.write_bytes(file.read_bytes()[:-1]) if damage == "truncated" else file.unlink()
    assert torch.equal(opened(path).splits["train"].audio.values, before)
    assert capsys.readouterr().out.count("rebuilding it\n") == 1
    assert len(list(path.parent.glob("*.store/*"))) == 1


def test_copied_store_is_used(path, monkeypatch):
    opened(path)
    for file in path.parent.glob("*.store/*/*/*"):
        os.utime(file)
    monkeypatch.setattr(store, "read_feature_file", lambda *_: pytest.fail("the pickle was read again"))
    opened(path)


def test_changed_pickle_replaces_the_store(path):
    opened(path)
    tiny.write_features(path, tiny.make_features(seed=7, audio_width=6))
    assert opened(path).audio_width == 6
    assert len(list((path.parent / "unaligned.pkl.store").iterdir())) == 1


def test_changed_content_of_the_same_size_and_time_replaces_the_store(path):
    opened(path)
    status = path.stat()
    changed = tiny.make_features()
    changed["train"]["regression_labels"][3] += 0.5
    tiny.write_features(path, changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert opened(path).splits["train"].labels["fusion"][3] == changed["train"]["regression_labels"][3]


def test_interrupted_conversion_leaves_nothing(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "flush", interrupt)
    with pytest.raises(KeyboardInterrupt):
        opened(path)
    assert not list((path.parent / "unaligned.pkl.store").iterdir())


def test_store_written_meanwhile_by_another_process_is_used(path, monkeypatch):
    write = store._write

    def other_process_is_faster(*arguments):
        monkeypatch.setattr(store, "_write", write)
        opened(path)
        write(*arguments)

    monkeypatch.setattr(store, "_write", other_process_is_faster)
    assert len(opened(path).splits["train"]) == tiny.SIZES["train"]
    assert len(list((path.parent / "unaligned.pkl.store").iterdir())) == 1


def test_cache_dir_holds_the_store(path, tmp_path):
    opened(path, cache_dir=tmp_path / "cache")
    assert not (path.parent / "unaligned.pkl.store").exists()
    assert list((tmp_path / "cache").glob("unaligned.pkl-*.store/*/meta.json"))


def test_error_of_an_unwritable_store_names_cache_dir(path, tmp_path):
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(OSError, match="occupied") as caught:
        opened(path, cache_dir=tmp_path / "occupied")
    assert "--cache_dir" in str(translate(caught.value))


def test_raw_text_is_cut_to_the_text_length_and_keeps_sep(tmp_path):
    features = tiny.make_features()
    features["train"]["raw_text"] = np.array([" ".join(["word1"] * 70)] * tiny.SIZES["train"])
    for split in features.values():
        del split["text_bert"]
    path = tiny.write_features(tmp_path / "f.pkl", features)
    tokenizer = load_tokenizer(str(tiny.write_bert(tmp_path / "bert")))
    text = opened(path, tokenizer=tokenizer).splits["train"].text
    assert text[0][:, 0].tolist() == [tiny.CLS, *[6] * 48, tiny.SEP] and MOSI.text_length == 50
    with pytest.raises(UserError, match="no vocabulary"):
        opened(path, cache_dir=tmp_path / "other")


def test_another_vocabulary_gets_another_store(tmp_path):
    features = tiny.make_features()
    for split in features.values():
        del split["text_bert"]
    path = tiny.write_features(tmp_path / "f.pkl", features)
    bert = tiny.write_bert(tmp_path / "bert")
    first = opened(path, tokenizer=load_tokenizer(str(bert))).splits["train"].text[0].tolist()
    (bert / "vocab.txt").write_text("\n".join(tiny.VOCABULARY[:5] + tiny.VOCABULARY[:4:-1]) + "\n")
    second = opened(path, tokenizer=load_tokenizer(str(bert))).splits["train"].text[0].tolist()
    assert len(first) == len(second) and first != second
    assert len(list((tmp_path / "f.pkl.store").iterdir())) == 2


def test_aligned_file_with_fewer_frames_than_tokens_is_refused(path):
    with pytest.raises(UserError, match=r"unaligned\.pkl: train: clip .* not an aligned file"):
        opened(path, aligned=True)
    assert feature_file.main(["CHECK", str(path), "--aligned"]) == 2


def test_window_is_padded_to_its_longest_clip(path):
    features = tiny.make_features()["train"]
    window = ClipDataset(opened(path).splits["train"])[[torch.tensor([4, 2]), torch.tensor([7])]]
    (batch,) = window.passes
    lengths = [features["audio_lengths"][clip] for clip in (4, 2, 7)]
    assert batch.audio.lengths[batch.audio.inverse_order].tolist() == lengths and batch.audio.values.shape[1] == max(
        lengths
    )
    for clip, position, length in zip((4, 2, 7), batch.audio.inverse_order, lengths, strict=True):
        np.testing.assert_array_equal(batch.audio.values[position, :length], features["audio"][clip, :length])
        assert not batch.audio.values[position, length:].any()
    assert batch.shares.tolist() == [0.5, 0.5, 1.0] and window.microbatches == [2, 1]


def test_conversion_shows_its_progress(path, monkeypatch):
    bars = []

    def on_a_terminal(*arguments, **settings):
        bars.append(tqdm(*arguments, **settings | {"disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr("utils.safe_pickle.progress", on_a_terminal)
    monkeypatch.setattr("data.ragged.progress", on_a_terminal)
    opened(path)
    reading, *writing = bars
    assert reading.desc == "reading unaligned.pkl" and reading.n == 1
    assert [bar.desc for bar in writing[:3]] == [f"writing train {name}" for name in ("text", "audio", "vision")]
    assert [bar.n for bar in writing] == [tiny.SIZES[split] for split in tiny.SIZES for _ in range(3)]


def test_leftovers_of_killed_conversions_are_removed_after_a_day(path):
    opened(path)
    home = path.parent / "unaligned.pkl.store"
    for name, age in (("unfinished-old", 2 * 86400), ("unfinished-new", 60)):
        (home / name).mkdir(parents=True)
        os.utime(home / name, (time.time() - age,) * 2)
    opened(path)
    assert not (home / "unfinished-old").exists() and (home / "unfinished-new").exists()


def test_check_reports_the_content_of_a_file(path, capsys):
    assert feature_file.main(["CHECK", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "train: 21 clips" in printed and "audio (21, 15, 5)" in printed and "text_bert (21, 3, 12)" in printed


def test_check_fails_with_one_line(path, tmp_path, capsys):
    assert feature_file.main(["check", str(path), "--datasetName", "sims"]) == 2
    assert "outside [-1, 1]" in capsys.readouterr().err
    assert feature_file.main(["check", str(tmp_path / "nowhere.pkl")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert feature_file.main(["test", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_worker_processes_map_the_store_themselves(path):
    split = opened(path).splits["train"]
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.audio[3], split.audio[3])
    assert len(pickle.dumps(split.audio)) < 500
    shutil.rmtree(path.parent / "unaligned.pkl.store")


def test_schema_error_names_split_key_and_clip(tmp_path):
    features = tiny.make_features()
    features["valid"]["text_bert"][3, 1] = [1, 0] * 6
    path = tiny.write_features(tmp_path / "f.pkl", features)
    with pytest.raises(
        UserError, match=r"f\.pkl: valid: text_bert: clip video11\$_\$3: the mask must be ones, then zeros"
    ):
        read_feature_file(path, MOSI, aligned=False)


def test_order_of_an_epoch_depends_only_on_seed_and_epoch(path):
    clips = ClipDataset(opened(path).splits["train"])
    config = make_config("mosi", batch_size=4, update_epochs=2)

    def order(seed: int, epoch: int, done: int = 0) -> list[int]:
        windows = training_windows(clips, config, seed).of_epoch(epoch, done)
        return [clip for window in windows for clip in window.clips.tolist()]

    orders = [tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (1, 2, 3)]
    assert len(set(orders)) == 6 and all(sorted(shuffled) == list(range(len(clips))) for shuffled in orders)
    assert tuple(order(2, 3)) == orders[-1] and tuple(order(2, 3, done=1)) == orders[-1][8:]
