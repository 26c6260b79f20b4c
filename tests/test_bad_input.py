"""Wrong flags, folders and text encoders: one line on stderr, exit status 2, and no files written.

For feature files, see test_bad_features.py.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import tiny

from config.config_regression import REPOSITORY


@pytest.mark.parametrize("flag", ["--res_save_dir", "--model_save_dir"])
def test_a_results_folder_that_is_a_file(fails, workplace, flag):
    (workplace.folder / "occupied").write_text("a file")
    assert "occupied" in fails(flag, str(workplace.folder / "occupied"))


def test_a_csv_that_another_program_keeps_open(workplace, capsys, monkeypatch):
    replace = os.replace

    def held(source, target):
        if str(target).endswith(".csv"):
            raise PermissionError(13, "Permission denied", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", held)
    assert workplace.run() == 2
    error = capsys.readouterr().err
    assert "mosi-regression-seeds.csv: " in error and "Permission denied" in error
    assert not list(workplace.folder.rglob("unfinished-*"))


def test_token_ids_beyond_the_vocabulary(fails, workplace):
    small = tiny.write_bert(workplace.folder / "small", vocab_size=30)
    line = fails("--bert", str(small))
    assert "token id" in line and "30" in line and "--bert" in line


def test_an_english_bert_on_chinese_ids(fails, workplace):
    """All Chinese ids are valid in the larger English vocabulary; only decoding them shows the mistake."""
    features = tiny.make_features()
    for split in features.values():
        split["raw_text"] = np.array(["我不想嫁给李茶" for _ in split["raw_text"]])
    tiny.write_features(workplace.features, features)
    line = fails()
    assert "doesn't fit the data" in line and "我不想嫁给李茶" in line and "bert-base-chinese" in line


def test_a_text_longer_than_the_encoder_allows(fails, workplace):
    short = tiny.write_bert(workplace.folder / "short", max_position_embeddings=8)
    assert "position 11 is beyond the 8" in fails("--bert", str(short))


def test_a_bert_folder_without_weights(fails, workplace):
    (workplace.bert / "model.safetensors").unlink()
    line = fails()
    assert "lacks" in line and "model.safetensors" in line and "bert-base-uncased" in line


def test_a_bert_folder_without_config(fails, workplace):
    (workplace.bert / "config.json").unlink()
    assert "lacks config.json" in fails()


def test_a_bert_folder_with_damaged_weights(fails, workplace):
    (workplace.bert / "model.safetensors").write_bytes(b"not weights")
    assert "cannot be loaded" in fails()


def test_a_bert_folder_with_incomplete_weights(fails, workplace):
    from safetensors.torch import load_file, save_file

    weights = load_file(workplace.bert / "model.safetensors")
    save_file(dict(list(weights.items())[3:]), workplace.bert / "model.safetensors", metadata={"format": "pt"})
    assert "the weights lack 3" in fails()


def test_a_missing_bert_folder(fails):
    assert "no such folder" in fails("--bert", "./nowhere/bert")


def test_no_bert_on_disk_and_no_internet(workplace, capsys, monkeypatch):
    import run
    from config import config_regression

    monkeypatch.setattr(config_regression, "REPOSITORY", workplace.folder)
    assert run.main(["--dataPath", str(workplace.features), "--gpu_ids", "-1"]) == 2
    line = capsys.readouterr().err
    assert "google-bert/bert-base-uncased" in line and "pretrained_model/bert_en" in line and line.count("\n") == 1


def test_a_misspelt_key_of_set(fails):
    assert "unknown key 'batchsize'; did you mean 'batch_size'?" in fails("--set", "batchsize=8")


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
def test_bad_values_of_set(fails, setting, complaint):
    assert complaint in fails("--set", setting)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--tasks", "TAV"], "M plus any of"),
        (["--tasks", "MX"], "M plus any of"),
        (["--train_mode", "classification"], "needs regression labels"),
        (["--modelName", "mult"], "self_mm"),
        (["--gpu_ids", "12"], "no such GPU"),
        (["--gpu_ids", "0", "1"], "a process uses one GPU"),
        (["--gpu_ids", "0", "1", "--jobs", "2"], "no such GPU"),
        (["--jobs", "0"], "1 or more"),
        (["--test_only", "nowhere", "--jobs", "2"], "leave out --jobs"),
        (["--is_tune", "perhaps"], "'perhaps'"),
        (["--is_tune", "--seeds", "1", "2"], "one seed"),
        (["--is_tune", "--preset", "tuned"], "leave out --params, --preset tuned"),
        (["--is_tune", "--storage", "somewhere"], "not a database URL"),
        (["--is_tune", "--storage", "redis://here/there"], "redis://here/there: cannot be opened"),
        (["--is_tune", "--storage", "mysql+pymysql://me:secret@here/there"], "***@here/there: cannot be opened"),
        (["--is_tune", "--storage", "postgresql://me:secret@host:port/none"], "not a database URL"),
        (["--is_tune", "--storage", "postgresql://me:secret@127.0.0.1:1/none"], "cannot be opened (connection failed"),
        (["--is_tune", "--pruner", "asha"], "invalid choice: 'asha'"),
        (["--preset", "tuned"], "--is_tune"),
        (["--preset", "mmsa", "--params", "file.json"], "not allowed with argument --preset"),
        (["--params", "nowhere.json"], "nowhere.json: no such file"),
        (["--threads", "0"], "1 to 1024"),
        (["--batch_size", "16"], "unrecognized arguments: --batch_size 16"),
        (["--datasetNam", "mosei"], "unrecognized arguments"),
        (["--seeds", "one"], "invalid int value"),
        (["--seeds", "-1"], "--seeds: -1"),
        (["--datasetName", "simsv2", "--preset", "released"], "mmsa"),
        (["--datasetName", "sims", "--aligned"], "no aligned feature file"),
    ],
)
def test_bad_flags(workplace, monkeypatch, capsys, flags, complaint):
    import run

    monkeypatch.setattr("trains.sweep.storage.OPEN_ATTEMPTS", 1)  # between them are waits
    assert (
        run.main(
            [*flags, "--bert", str(workplace.bert)] + ["--dataPath", str(workplace.features)] * ("sims" not in flags)
        )
        == 2
    )
    line = capsys.readouterr().err
    assert complaint in line and line.count("\n") == 1 and "secret" not in line
    assert not workplace.written()


def test_a_missing_checkpoint(fails):
    assert "--test_only nowhere" in fails("--test_only", "nowhere")


def test_the_exit_status_is_2(workplace):
    command = [sys.executable, str(REPOSITORY / "run.py"), "--params", "nowhere.json"]  # noticed before torch is loaded
    finished = subprocess.run(command, capture_output=True, text=True, cwd=workplace.folder)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: nowhere.json") and finished.stderr.count("\n") == 1
    assert not workplace.written()


@pytest.mark.parametrize(
    "flags, named",
    [
        ("--dataPath no.pkl", "no.pkl: no such feature file"),
        ("--datasetName sims", "unaligned_39.pkl: no such feature file"),
        ("--bert ./nowhere", "--bert ./nowhere: no such folder"),
        ("--modelName selfmm", "--modelName selfmm: unknown model"),
        ("--test_only ./nowhere", "--test_only ./nowhere: not found"),
        ("--set batchsize=3", "did you mean 'batch_size'"),
    ],
)
def test_a_typo_is_found_before_torch_is_imported(tmp_path, flags, named):
    code = "import sys; sys.modules['torch'] = None; import run; sys.exit(run.main(sys.argv[1:]))"
    environment = os.environ | {"SELF_MM_DATA": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *flags.split()]
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: ") and named in process.stderr
