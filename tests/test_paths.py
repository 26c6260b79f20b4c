"""Names in files are not paths: no label table, --bert folder or archive makes the program read another file, or too much."""

import json
import os
import zipfile
from pathlib import PureWindowsPath

import numpy as np
import pandas as pd
import pytest
import tiny
from tokenizers import normalizers

from config.config_regression import DATASETS
from data import feature_file
from data.builders import from_parts
from data.builders.clip_cache import extract_clip
from data.builders.label_table import LabelledClip, read_label_table
from data.builders.transcript import Cue, split
from data.extractors import Clip, ClipError
from data.extractors.openface import columns, read_table
from data.extractors.vision import NoFaces
from models.pretrained_bert import load_bert, load_tokenizer
from utils.errors import UserError

MOSI = DATASETS["mosi"]
OUTSIDE = ["..", "../outside", "a/../../outside", "/outside", "//outside", ".", "./.", "...", "a/.. /b"]
OF_WINDOWS = ["..\\outside", "a\\..\\..\\outside", "\\outside", "C:\\outside", "C:outside", "\\\\host\\share\\outside"]
INSIDE = ["a/b", "./a", "..a", "a..b", "-f", "a b", "100%", "\u4f60\u597d"]


@pytest.mark.parametrize("place", range(2))
@pytest.mark.parametrize("name", OUTSIDE)
def test_ids_that_leave_the_folder_are_refused(label_table, name, place):
    ids = [name, "1"] if place == 0 else ["1", name]
    clips, refused = read_label_table(label_table(f"{ids[0]},{ids[1]},a,1,,train,,,"), MOSI)
    assert len(clips) == 4 and ["video_id", "clip_id"][place] in refused["$_$".join(ids)]


def test_on_windows_its_paths_are_refused_too(label_table, monkeypatch):
    path = label_table(*(f"{name},1,a,1,,train,,," for name in OF_WINDOWS))
    monkeypatch.setattr("data.builders.label_table.Path", PureWindowsPath)
    clips, refused = read_label_table(path, MOSI)
    assert len(clips) == 4 and len(refused) == len(OF_WINDOWS)


def test_ids_may_have_folders_and_odd_names(label_table):
    clips, refused = read_label_table(label_table(*(f"{name},{name},a,1,,train,,," for name in INSIDE)), MOSI)
    assert [clip.video_id for clip in clips[4:]] == INSIDE and not refused


def write_parts(folder, *names: str) -> None:
    for name in names:
        for key in ("audio", "vision"):
            file = folder / key / f"{name}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, np.ones((2, 3)))


def build(folder, table) -> tuple[int, dict[str, str]]:
    """The exit status of BUILD, and the reason for each clip that was left out."""
    argv = ["BUILD", folder / "own.pkl", "--labels", table, "--parts", folder / "parts"]
    status = feature_file.main([str(word) for word in argv])
    errors = folder / "own.errors.csv"
    return status, dict(pd.read_csv(errors).to_numpy().tolist()) if errors.exists() else {}


USABLE = ("001/0001", "001/0002", "002/1", "003/1")


def test_build_reads_no_array_outside_its_folder(label_table, tmp_path):
    write_parts(tmp_path / "parts", *USABLE, "folder/001/1")
    write_parts(tmp_path, "1")  # what ../ leads to
    rows = (f"{name},1,a,1,,train,,," for name in ("..", tmp_path / "audio", "folder/001"))
    status, errors = build(tmp_path, label_table(*rows))
    assert status == 2 and set(errors) == {"..$_$1", f"{tmp_path / 'audio'}$_$1"}


def write_header(file, shape: tuple[int, ...], flags: int = 0) -> None:
    """An .npz whose array has a header for this shape, and four numbers. flags: of the zip member."""
    with zipfile.ZipFile(file, "w") as archive, archive.open("values.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
        stream.write(bytes(32))
    content = bytearray(file.read_bytes())
    content[6] |= flags
    content[content.index(b"PK\1\2") + 8] |= flags
    file.write_bytes(content)


def test_build_leaves_out_arrays_that_unpack_to_too_much(label_table, tmp_path, monkeypatch):
    monkeypatch.setattr(from_parts, "MOST_BYTES", 2**20)
    write_parts(tmp_path / "parts", *USABLE, "001/bomb", "001/boast", "001/locked")
    for name in ("bomb", "boast", "locked"):
        (tmp_path / "parts" / "audio" / "001" / f"{name}.npy").unlink()
    np.savez_compressed(tmp_path / "parts" / "audio" / "001" / "bomb.npz", np.zeros((2**20, 3)))
    write_header(tmp_path / "parts" / "audio" / "001" / "boast.npz", (2**50, 3))
    write_header(tmp_path / "parts" / "audio" / "001" / "locked.npz", (2, 2), flags=1)
    rows = (f"001,{name},a,1,,train,,," for name in ("bomb", "boast", "locked"))
    status, errors = build(tmp_path, label_table(*rows))
    assert status == 2 and {name.partition("$_$")[2] for name in errors} == {"bomb", "boast", "locked"}
    assert "24 MiB unpacked, more than 1: save it as .npy" in errors["001$_$bomb"]


def test_a_cached_clip_that_unpacks_to_more_than_its_file_is_extracted_again(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "1.mp4").touch()
    (tmp_path / "cache").mkdir()
    labelled = LabelledClip("v", "1", "word", 1.0, "train")

    def extract():
        return extract_clip({"vision": NoFaces()}, tmp_path, None, tmp_path / "cache", False, labelled)["vision"]

    first = extract()
    assert first.extraction_seconds is not None and extract().extraction_seconds is None
    with np.load(first.file) as arrays:
        np.savez_compressed(first.file, **dict(arrays) | {"frames": np.zeros((2**18, 1), np.float32)})
    assert first.file.stat().st_size < 2**18
    again = extract()
    assert again.extraction_seconds is not None and again.length == 1 and extract().load().shape == (1, 1)


def test_tables_with_too_many_columns_are_refused(tmp_path):
    names = ["video_id", "clip_id", "text", "label", "mode", *map(str, range(20_000))]
    (tmp_path / "label.csv").write_text(f"{','.join(names)}\n")
    with pytest.raises(UserError, match="label.csv: .*20005 columns, but at most 1000"):
        read_label_table(tmp_path / "label.csv", MOSI)


def test_further_columns_of_an_openface_table_are_not_parsed(tmp_path, monkeypatch):
    table = dict.fromkeys(["frame", *columns(), *(f"more_{number}" for number in range(2000))], [0.5, 0.5])
    table |= {"timestamp": [0, 0.1], "success": [1, 1]}
    pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
    parsed, parse = [], pd.to_numeric
    monkeypatch.setattr(pd, "to_numeric", lambda column, **how: parsed.append(column.name) or parse(column, **how))
    assert read_table(tmp_path / "a.csv")[0].shape == (2, 709) and len(parsed) <= 713


def test_times_beyond_a_day_are_not_split_into_windows():
    for seconds in (0, 0.1):
        with pytest.raises(ClipError, match="within a day"):
            split(Clip("a.mp4"), [Cue("word", 0.0, 1e15)], seconds, True)


@pytest.fixture
def bert(tmp_path):
    return tiny.write_bert(tmp_path / "bert")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_index_names_files_beside_it_only(bert, kind):
    name = f"{'model' if kind == 'safetensors' else 'pytorch_model'}-00001-of-00001.{kind}"
    if kind == "safetensors":
        os.rename(bert / "model.safetensors", bert.parent / name)
    else:
        import torch

        (bert / "model.safetensors").unlink()
        torch.save(tiny.make_bert().state_dict(), bert.parent / name)
    index = bert / name.replace(f"-00001-of-00001.{kind}", f".{kind}.index.json")
    for target in (f"../{name}", str(bert.parent / name)):
        index.write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tiny.make_bert().state_dict(), target)})
        )
        with pytest.raises(UserError, match="index.json: names .*not a file beside it"):
            load_bert(str(bert))
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tiny.make_bert().state_dict(), name)}))
    (bert / name).symlink_to(bert.parent / name)  # as in the hub's cache
    assert load_bert(str(bert)).config.hidden_size == 16


def grow(bert) -> dict:
    """Adds a tokenizer.json that turns each w into a million. Returns tokenizer_config.json."""
    load_tokenizer(str(bert)).save_pretrained(bert)
    tokenizer = json.loads((bert / "tokenizer.json").read_text())
    replace = {"type": "Replace", "pattern": {"String": "w"}, "content": "w" * 1000}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [replace, replace]}
    (bert / "tokenizer.json").write_text(json.dumps(tokenizer))
    return json.loads((bert / "tokenizer_config.json").read_text())


def test_a_tokenizer_takes_berts_own_steps_only(bert):
    settings = grow(bert)
    tokenizer = load_tokenizer(str(bert))
    assert tokenizer("word3 word0")["input_ids"] == [tiny.CLS, 8, 5, tiny.SEP]
    assert isinstance(tokenizer.backend_tokenizer.normalizer, normalizers.BertNormalizer)
    for key, value in {
        "trust_remote_code": True,
        "fast_tokenizer_files": ["../tokenizer.1.0.0.json"],
        "gguf_file": "../tokenizer.gguf",
        "vocab": "/etc/hostname",  # tokenizers would read, and later save, that file's lines
        "model_max_length": "long",
    }.items():
        (bert / "tokenizer_config.json").write_text(json.dumps(settings | {key: value}))
        with pytest.raises(UserError, match=f"tokenizer_config.json: remove {key}"):
            load_tokenizer(str(bert))


@pytest.mark.parametrize("stated", [None, {"model_max_length": 512}])
def test_capitals_count_in_a_cased_tokenizer_json_whose_config_does_not_say(bert, stated):
    vocabulary = [*tiny.VOCABULARY[:5], "the", "us", "US", "May", "may"]
    (bert / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    load_tokenizer(str(bert)).save_pretrained(bert)
    (bert / "vocab.txt").unlink(missing_ok=True)
    (bert / "tokenizer_config.json").unlink()
    if stated:
        (bert / "tokenizer_config.json").write_text(json.dumps(stated))
    assert load_tokenizer(str(bert)).tokenize("the US May us") == ["the", "US", "May", "us"]
