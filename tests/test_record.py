"""The files of a run: labels after each epoch, predictions, features, the ablation's table, TensorBoard."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from run_files import SEEDS_CSV, checkpoint

import predict
import run
from config.config_regression import TASK_SETS, make_config
from data.schema import UNIMODAL_LABELS
from trains.runs import keeper
from trains.runs.figures.quality import label_quality
from trains.runs.figures.run_data import disagreement, read_labels, read_run_data
from trains.runs.report import ablation_table
from trains.runs.training_state import save_state


def with_human_labels(features: dict) -> dict:
    for number, split in enumerate(features.values()):
        labels = split["regression_labels"]
        drawn = np.random.default_rng(number).uniform(-3, 3, (3, len(labels)))
        split |= {key: values.astype(np.float32) for key, values in zip(UNIMODAL_LABELS.values(), drawn, strict=True)}
    return features


def folders() -> list[Path]:
    return sorted(path.parent for path in Path("results/results").glob("*/run.json"))


def test_labels_of_every_epoch_are_kept_and_those_of_the_best_are_the_checkpoints(workplace):
    assert workplace.run("--save_labels", "--max_epochs", "4") == 0
    (folder,) = folders()
    data = read_run_data(folder)
    table = pd.read_csv(checkpoint() / "labels.csv")
    assert data.labels["epoch"].tolist() == data.histories[1].index.tolist() == [1, 2, 3, 4]
    assert data.labels["id"].tolist() == table["id"].tolist()
    for task in ("text", "audio", "vision"):
        assert data.labels[task].shape == (4, 21) and data.labels[task].dtype == np.float32
        assert (data.labels[task][int(data.rows["best_epoch"][1]) - 1] == table[task].to_numpy(dtype=np.float32)).all()
    assert (data.labels["fusion"] == table["fusion"].to_numpy(dtype=np.float32)).all()
    assert read_labels(folder / "1-labels.npz", epochs=2)["text"].shape == (2, 21)
    assert workplace.run("--max_epochs", "4") == 0  # trained again without the flag: old labels would not be this run's
    assert read_run_data(folder).labels is None


def test_all_predictions_are_those_of_predict_and_features_have_their_clips(workplace, capsys):
    assert workplace.run() == 0
    (folder,) = folders()
    short = pd.read_csv(folder / "1-predictions.csv")
    assert short["split"].value_counts().to_dict() == {"train": 20, "test": 9}
    assert workplace.run("--save_predictions") == 0
    clips = pd.read_csv(folder / "1-predictions.csv")
    assert clips["split"].value_counts().to_dict() == tiny.SIZES
    both = short.merge(clips, on=["split", "id"])
    assert len(both) == len(short)
    for name in short.columns.drop(["split", "id", "text", "class"]):
        assert np.allclose(both[f"{name}_x"], both[f"{name}_y"], atol=1e-6, equal_nan=True), name
    labels = pd.read_csv(checkpoint() / "labels.csv")
    spread = disagreement(labels.set_index("id")[["fusion", "text", "audio", "vision"]])
    assert set(short.loc[short["split"] == "train", "id"]) == set(spread.nlargest(20).index)
    assert spread.iloc[0] == np.ptp(labels.loc[0, ["text", "audio", "vision"]])
    assert (clips.loc[clips["split"] == "train", "audio_label"].to_numpy() == labels["audio"].to_numpy()).all()
    assert clips.loc[clips["split"] != "train", "audio_label"].isna().all()
    with np.load(folder / "1-features.npz", allow_pickle=False) as features:
        for split, size in tiny.SIZES.items():
            assert features[f"{split}_id"].tolist() == clips.loc[clips["split"] == split, "id"].tolist()
            config = make_config("mosi")
            for task in config.task_names:
                assert features[f"{split}_{task}"].shape == (size, config.head_sizes[task][0])
                assert (features[f"{split}_{task}"] >= 0).all()  # after ReLU
    capsys.readouterr()
    flags = ["--checkpoint", str(checkpoint()), "--features", str(workplace.features), "--json", "--gpu_ids", "-1"]
    assert predict.main(flags) == 0
    scores = pd.DataFrame(json.loads(capsys.readouterr().out))
    tested = clips[clips["split"] == "test"].reset_index(drop=True)
    assert np.allclose(tested["score"], scores["score"], atol=1e-6) and tested["class"].equals(scores["class"])


def test_label_quality_by_hand():
    labels = {"fusion": np.array([1.0, -1.0, 0.5]), "text": np.array([2.0, -1.0, -0.5]), "audio": np.zeros(3)}
    human = {"fusion": labels["fusion"], "text": np.array([2.0, 0.0, -1.5])}
    quality = label_quality(labels, human, 3.0, [1, 1])
    assert quality["text_label_MAE"] == pytest.approx(2 / 3, abs=1e-4)
    assert quality["text_label_sign"] == 1 and quality["text_copied_sign"] == 0.5  # of the two that are not 0
    assert quality["text_copied_MAE"] == pytest.approx(4 / 3, abs=1e-4)
    assert quality["text_label_Corr"] == pytest.approx(np.corrcoef([2, -1, -0.5], [2, 0, -1.5])[0, 1], abs=1e-4)
    assert quality["text_shuffled_MAE"] > quality["text_label_MAE"]
    assert not any(name.startswith(("audio", "fusion")) for name in quality)
    # A copied 0 has no sign: noise would be right in half of these clips, so they are left out.
    labels = {"fusion": np.array([1.0, 0.0]), "text": np.array([1.0, 0.1])}
    assert label_quality(labels, {"text": np.array([1.0, 1.0])}, 1.0, [1, 1])["text_copied_sign"] == 1
    # Shuffled labels have the bounds of generated ones: 3 + (-6 or 0), -3 + (-6 or 0).
    labels = {"fusion": np.array([3.0, -3.0]), "text": np.array([-3.0, -3.0])}
    assert label_quality(labels, {"text": np.array([3.0, -3.0])}, 3.0, [1, 1])["text_shuffled_MAE"] <= 3


def test_quality_is_in_the_history_only_with_human_labels_and_generated_ones(workplace):
    assert workplace.run() == 0
    tiny.write_features(workplace.features, with_human_labels(tiny.make_features()))
    assert workplace.run() == 0 and workplace.run("--unimodal_labels", "copied") == 0
    assert workplace.run("--unimodal_labels", "human", "--max_epochs", "3", "--save_labels") == 0
    found = [sum("_label_" in name for name in read_run_data(folder).histories[1]) for folder in folders()]
    assert sorted(found) == [0, 0, 0, 9]
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["config_hash"].nunique() == 4
    assert rows["settings"].str.split().str[0].tolist() == ["batch_size=4", "batch_size=4", "copied", "human"]
    runs = [read_run_data(folder) for folder in folders()]
    (data,) = [run for run in runs if run.facts["hyper_parameters"]["unimodal_labels"] == "human"]
    truth = with_human_labels(tiny.make_features())["train"]
    assert all((data.labels["vision"] == truth["regression_labels_V"]).all(axis=1))
    assert (
        data.histories[1]["train_loss"].iloc[0] > 1.1 * data.labels["fusion"].std()
    )  # the tasks count from epoch 1 on


def test_human_labels_that_the_file_lacks_are_one_error(fails):
    error = fails("--unimodal_labels", "human", "--tasks", "MA")
    assert "regression_labels_A" in error and "regression_labels_T" not in error


def test_jobs_of_an_ablation_train_one_choice_and_seed_each(workplace, monkeypatch):
    started = {}
    monkeypatch.setattr(run, "run_jobs", lambda options, jobs: started.update(jobs) or ["no job was started"])
    assert workplace.run("--ablate", "--seeds", "1", "2", "--jobs", "2") == 2
    assert len(started) == 16
    options = [run.parse_arguments(workplace.command("--ablate", *flags)) for flags in started.values()]
    assert {(one.config().tasks, *one.seeds) for one in options} == {
        (tasks, seed) for tasks in TASK_SETS for seed in (1, 2)
    }
    assert not any(one.ablate for one in options)


def test_undefined_scores_are_a_dash_in_the_ablation():
    test = {"MAE": 0.5, "Corr": float("nan"), "Mult_acc_2": 0.25}
    table = ablation_table({"M": [test], "MT": [test]}, {"M": {}, "MT": {"paper": {"Corr": 0.781}}})
    assert table.columns.tolist() == ["tasks", "MAE", "Corr paper", "Mult_acc_2"]  # no std of a single seed
    assert table["Corr paper"].tolist() == ["-", "0.7810"] and table["Mult_acc_2"].tolist() == ["25.00"] * 2


@pytest.mark.parametrize("flags", [["--tasks", "MT"], ["--set", "tasks=MT"], ["--is_tune"], ["--test_only", "x"]])
def test_ablate_excludes_other_choices_of_tasks(fails, flags):
    assert "--ablate" in fails("--ablate", *flags)


def test_another_experiment_of_the_same_words_has_a_folder_of_its_own(workplace):
    for seed in (0, 5):
        tiny.write_features(workplace.features, tiny.make_features(seed))
        assert workplace.run() == 0
    one, other = folders()
    assert other.name.startswith(one.name) and read_run_data(other).facts["config_hash"] in other.name


def test_damaged_records_are_one_error(workplace, capsys):
    from trains.runs.figures.__main__ import main

    assert workplace.run("--save_labels") == 0
    (folder,) = folders()
    for name, content in {
        "1-history.csv": "epoch,valid_Loss\n1,x\n",
        "1-predictions.csv": "",
        "run.json": "[]",
        "1-labels.npz": "PK",
        "../normals/mosi-regression-seeds.csv": "seed,best_epoch\n1,1\n",
    }.items():
        whole = (folder / name).read_bytes()
        (folder / name).write_text(content)
        capsys.readouterr()
        assert main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and Path(name).name in error and error.count("\n") == 1
        (folder / name).write_bytes(whole)
    assert main([str(folder / "nowhere")]) == 2


def test_tensorboard_gets_the_numbers_of_the_history_once(workplace, monkeypatch):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert workplace.run("--tensorboard", "--max_epochs", "3") == 0
    with monkeypatch.context() as patch:  # again, killed at the end, with the state after epoch 1
        saved = []
        patch.setattr(keeper, "save_state", lambda *state: saved.append(state) or len(saved) > 1 or save_state(*state))
        patch.setattr(keeper.Keeper, "finish", lambda self: 1 / 0)
        assert workplace.run("--tensorboard", "--max_epochs", "3") == 1
    assert workplace.run("--tensorboard", "--max_epochs", "3", "--resume") == 0
    events = loader.EventAccumulator(
        f"logs/{checkpoint().name}", size_guidance={"scalars": 0, "histograms": 0}
    ).Reload()
    (folder,) = folders()
    data = read_run_data(folder)
    for name, column in {"valid/Loss": "valid_Loss", "train/loss": "train_loss"}.items():
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert np.allclose([scalar.value for scalar in scalars], data.histories[1][column], rtol=1e-6)
    assert [histogram.step for histogram in events.Histograms("labels/audio")] == [1, 2, 3]
    assert events.Scalars("test/MAE")[0].value == pytest.approx(data.rows["MAE"][1])


def test_a_missing_tensorboard_is_noticed_before_training(fails, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install tensorboard" in fails("--tensorboard")
