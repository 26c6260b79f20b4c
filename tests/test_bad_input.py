"""What a new user gets wrong. Each time: one line that says what, where and how to mend it; status 2; nothing written."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny

from config.config_regression import REPOSITORY


def spoiled(workplace, split: str, key: str, value) -> None:
    """Rewrites the feature file with one array changed, or taken out where value is None."""
    features = tiny.make_features()
    if value is None:
        del features[split][key]
    else:
        features[split][key] = value(features[split][key]) if callable(value) else value
    tiny.write_features(workplace.features, features)


def test_no_data_at_the_path(fails, workplace):
    line = fails("--dataPath", str(workplace.folder / "nowhere.pkl"))
    assert "nowhere.pkl" in line and "--dataPath" in line and "--datasetName demo" in line


def test_no_data_at_the_default_path(workplace, capsys, monkeypatch):
    monkeypatch.setenv("SELF_MM_DATA", str(workplace.folder / "empty"))
    import run

    assert run.main(["--datasetName", "MOSI", "--bert", str(workplace.bert)]) == 2
    assert os.path.join("MOSI", "Processed", "unaligned_50.pkl") in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"video_id,clip_id\n1,2\n", b"", b"\x80\x04", b"(lp0\n"])
def test_a_file_that_is_no_pickle(fails, workplace, content):
    workplace.features.write_bytes(content)
    assert "unaligned.pkl: not a feature pickle" in fails()


def test_a_folder_as_feature_file(fails, workplace):
    assert "directory" in fails("--dataPath", str(workplace.folder))


@pytest.mark.parametrize("key", ["id", "audio", "vision", "regression_labels", "audio_lengths", "vision_lengths"])
def test_a_missing_key(fails, workplace, key):
    spoiled(workplace, "valid", key, None)
    line = fails()
    assert "unaligned.pkl: valid: " in line and f"{key}: missing" in line


def test_lengths_that_are_missing_lead_to_aligned(fails, workplace):
    spoiled(workplace, "train", "audio_lengths", None)
    assert "--aligned" in fails()


def test_a_missing_split(fails, workplace):
    features = tiny.make_features()
    del features["test"]
    tiny.write_features(workplace.features, features)
    assert "no split 'test'" in fails()


def test_text_that_is_missing_altogether(fails, workplace):
    features = tiny.make_features()
    del features["test"]["raw_text"], features["test"]["text_bert"]
    tiny.write_features(workplace.features, features)
    assert "test: text_bert: missing, and raw_text too" in fails()


def test_a_width_that_differs_between_splits(fails, workplace):
    spoiled(workplace, "test", "audio", lambda audio: audio[:, :, :3])
    line = fails()
    assert "audio" in line and "'train': 5" in line and "'test': 3" in line


def test_an_array_of_the_wrong_shape(fails, workplace):
    spoiled(workplace, "train", "vision", lambda vision: vision[:, 0])
    assert "train: vision: expected (N, frames, width)" in fails()


def test_text_bert_as_the_released_datapre_writes_it(fails, workplace):
    spoiled(workplace, "train", "text_bert", lambda tokens: tokens.transpose(0, 2, 1))
    assert "swapped" in fails()


def test_lengths_beyond_the_array(fails, workplace):
    spoiled(workplace, "train", "audio_lengths", lambda lengths: [*lengths[:4], 16, *lengths[5:]])
    line = fails()
    assert "train: audio_lengths: clip video1$_$4 has 16" in line and "15 frames" in line


def test_a_label_of_5(fails, workplace):
    spoiled(workplace, "test", "regression_labels", lambda labels: np.append(labels[:-1], np.float32(5)))
    line = fails()
    assert "test: regression_labels: clip video22$_$8 has 5" in line and "[-3, 3]" in line


def test_the_range_holds_for_a_file_that_was_read_as_another_dataset_before(fails, workplace):
    assert workplace.run("--max_epochs", "1") == 0
    assert "outside [-1, 1], the range of sims" in fails("--datasetName", "sims")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (lambda texts: [text.split() for text in texts], "number 0 is no text"),
        (lambda texts: [None, *texts[1:]], "number 0 is no text: 'None'"),
        (lambda texts: [*texts[:-1], b"caf\xe9"], "number 20 is no text"),
        (lambda texts: [*texts[:-1], "\ud800"], "number 20 is no text"),
        (lambda texts: texts[:-1], "expected N = 21 texts"),
    ],
)
def test_texts_that_are_none(fails, workplace, value, complaint):
    features = tiny.make_features()
    for split in features.values():
        del split["text_bert"]
    features["train"]["raw_text"] = value(features["train"]["raw_text"])
    tiny.write_features(workplace.features, features)
    assert complaint in fails()


def test_texts_that_nothing_reads_may_be_anything(workplace):
    spoiled(workplace, "train", "raw_text", lambda texts: [None, b"caf\xe9", "\ud800", *texts[3:]])
    assert workplace.run("--max_epochs", "1") == 0


def test_text_of_another_kind_in_each_split(fails, workplace):
    features = tiny.make_features()
    del features["train"]["raw_text"], features["test"]["text_bert"]
    tiny.write_features(workplace.features, features)
    assert "text_bert is missing in test, and raw_text in train" in fails()


def test_clips_of_several_shapes_in_one_array(fails, workplace):
    spoiled(workplace, "train", "audio", lambda audio: [clip[: 1 + number % 5] for number, clip in enumerate(audio)])
    assert "pad them to one length" in fails()


def test_token_ids_beyond_any_vocabulary(fails, workplace):
    spoiled(
        workplace, "valid", "text_bert", lambda tokens: tokens * np.int64([[1], [1], [10**12]]) + [[10**12], [0], [0]]
    )
    assert "valid: text_bert: clip video10$_$0" in fails()


@pytest.mark.parametrize("flag", ["--res_save_dir", "--model_save_dir"])
def test_a_results_folder_that_can_not_be(fails, workplace, flag):
    (workplace.folder / "occupied").write_text("a file")
    assert "occupied" in fails(flag, str(workplace.folder / "occupied"))


def test_a_csv_that_another_program_holds(workplace, capsys, monkeypatch):
    replace = os.replace

    def held(source, target):
        if str(target).endswith(".csv"):
            raise PermissionError(13, "Permission denied", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", held)
    assert workplace.run() == 2
    assert "mosi-regression-seeds.csv: can't be written (Permission denied)" in capsys.readouterr().err
    assert not list(workplace.folder.rglob("unfinished-*"))


def test_nan_in_the_labels(fails, workplace):
    spoiled(workplace, "train", "regression_labels", lambda labels: np.append(labels[:-1], np.float32("nan")))
    assert "train: regression_labels: clip video6$_$20 has nan" in fails()


def test_all_labels_positive(fails, workplace):
    spoiled(workplace, "train", "regression_labels", np.abs)
    assert "all 21 labels are positive" in fails()


def test_no_positive_label_where_zero_counts_as_neither(fails, workplace):
    spoiled(workplace, "train", "regression_labels", lambda labels: np.minimum(labels, 0))
    assert workplace.run() == 0  # neutral clips count as positive
    shutil.rmtree("results"), shutil.rmtree("logs")
    workplace.remember_inputs()
    assert "fusion labels were all of one sign" in fails("--preset", "mmsa")


def test_token_ids_beyond_the_vocabulary(fails, workplace):
    small = tiny.write_bert(workplace.folder / "small", vocab_size=30)
    line = fails("--bert", str(small))
    assert "token id" in line and "30" in line and "--bert" in line


def test_an_english_bert_on_chinese_ids(fails, workplace):
    """Chinese ids all lie within the larger English vocabulary; only reading them back shows the mistake."""
    features = tiny.make_features()
    for split in features.values():
        split["raw_text"] = np.array(["我不想嫁给李茶" for _ in split["raw_text"]])
    tiny.write_features(workplace.features, features)
    line = fails()
    assert "doesn't fit the data" in line and "我不想嫁给李茶" in line and "bert-base-chinese" in line


def test_a_text_longer_than_the_encoder_takes(fails, workplace):
    short = tiny.write_bert(workplace.folder / "short", max_position_embeddings=8)
    assert "takes 8" in fails("--bert", str(short))


def test_a_bert_folder_without_weights(fails, workplace):
    (workplace.bert / "model.safetensors").unlink()
    line = fails()
    assert "no weights" in line and "model.safetensors" in line and "bert-base-uncased" in line


def test_a_bert_folder_without_config(fails, workplace):
    (workplace.bert / "config.json").unlink()
    assert "no config.json" in fails()


def test_a_bert_folder_with_damaged_weights(fails, workplace):
    (workplace.bert / "model.safetensors").write_bytes(b"not weights")
    assert "can't be loaded" in fails()


def test_a_bert_folder_with_some_weights_only(fails, workplace):
    from safetensors.torch import load_file, save_file

    weights = load_file(workplace.bert / "model.safetensors")
    save_file(dict(list(weights.items())[3:]), workplace.bert / "model.safetensors", metadata={"format": "pt"})
    assert "the weights lack 3" in fails()


def test_a_bert_folder_that_is_not_there(fails):
    assert "no such folder" in fails("--bert", "./nowhere/bert")


def test_no_bert_on_the_disk_and_no_internet(workplace, capsys, monkeypatch):
    import run
    from config import config_regression

    monkeypatch.setattr(config_regression, "REPOSITORY", workplace.folder)
    assert run.main(["--dataPath", str(workplace.features), "--gpu_ids", "-1"]) == 2
    line = capsys.readouterr().err
    assert "google-bert/bert-base-uncased" in line and "pretrained_model/bert_en" in line and line.count("\n") == 1


def test_a_misspelt_set_key(fails):
    assert "unknown key 'batchsize'; the closest known one is 'batch_size'" in fails("--set", "batchsize=8")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("batch_size", "expected KEY=VALUE"),
        ("batch_size=many", "a whole number"),
        ("batch_size=0", "more than 0"),
        ("learning_rate_bert=nan", "out of range"),
        ("post_text_dropout=1.5", "0 <= value < 1"),
        ("use_finetune=perhaps", "True or False"),
        ("KeyEval=Accuracy", "KeyEval"),
    ],
)
def test_bad_values(fails, setting, complaint):
    assert complaint in fails("--set", setting)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--tasks", "TAV"], "M and any of"),
        (["--tasks", "MX"], "M and any of"),
        (["--train_mode", "classification"], "regression labels only"),
        (["--modelName", "mult"], "self_mm"),
        (["--gpu_ids", "12"], "no such GPU"),
        (["--gpu_ids", "0", "1"], "a process uses one GPU; --jobs"),
        (["--gpu_ids", "0", "1", "--jobs", "2"], "no such GPU"),
        (["--jobs", "0"], "1 or more"),
        (["--is_tune", "perhaps"], "expected True or False"),
        (["--is_tune", "--seeds", "1", "2"], "one seed"),
        (["--is_tune", "--preset", "tuned"], "leave out --params and --preset tuned"),
        (["--is_tune", "--storage", "somewhere"], "no database URL; expected, for example, postgresql://"),
        (["--is_tune", "--storage", "redis://here/there"], "no such kind of database"),
        (["--is_tune", "--storage", "mysql+pymysql://me:secret@here/there"], "its driver isn't installed"),
        (["--is_tune", "--storage", "postgresql://me:secret@host:port/none"], "no database URL"),
        (["--is_tune", "--storage", "postgresql://me:secret@127.0.0.1:1/none"], "can't be opened (connection failed"),
        (["--is_tune", "--pruner", "asha"], "invalid choice: 'asha'"),
        (["--preset", "tuned"], "a sweep writes them (add --is_tune)"),
        (["--preset", "mmsa", "--params", "file.json"], "leave one out"),
        (["--params", "nowhere.json"], "nowhere.json: no tuned hyper-parameters there"),
        (["--threads", "0"], "1 or more"),
        (["--batch_size", "16"], "unrecognized arguments: --batch_size 16"),
        (["--datasetNam", "mosei"], "unrecognized arguments"),
        (["--seeds", "one"], "invalid int value"),
        (["--seeds", "-1"], "--seeds -1"),
        (["--datasetName", "simsv2", "--preset", "released"], "mmsa"),
        (["--datasetName", "sims", "--aligned"], "no aligned feature file"),
    ],
)
def test_bad_flags(workplace, capsys, flags, complaint):
    import run

    assert (
        run.main(
            [*flags, "--bert", str(workplace.bert)] + ["--dataPath", str(workplace.features)] * ("sims" not in flags)
        )
        == 2
    )
    line = capsys.readouterr().err
    assert complaint in line and line.count("\n") == 1 and "secret" not in line
    assert not workplace.written()


def test_a_checkpoint_that_is_not_there(fails):
    assert "nothing there" in fails("--test_only", "nowhere")


def test_from_the_shell_the_status_is_2(workplace):
    command = [sys.executable, str(REPOSITORY / "run.py"), "--dataPath", "nowhere.pkl", "--bert", str(workplace.bert)]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=workplace.folder)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: nowhere.pkl") and finished.stderr.count("\n") == 1
    assert not workplace.written()
