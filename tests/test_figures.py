"""A run's figures show the numbers of its CSVs and of its labels file."""

import dataclasses
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from config.config_regression import DATASETS
from trains.runs.figures.draw import INK, figures, to_png, to_svg
from trains.runs.figures.quality import MEASURES, SOURCES
from trains.runs.figures.run_data import RunData
from utils.metrics import METRICS

UNIMODAL = ["text", "audio", "vision"]
SEED, EPOCHS, BEST = 8, 11, {7: 2, 8: 10}


def make_run(dataset: str = "demo", tasks: list[str] = UNIMODAL, human: bool = True, labels: bool = True) -> RunData:
    """A run of seeds 7 and 8, with 40 training and 30 test clips. tasks: unimodal. human: with human unimodal labels."""
    rng, facts = np.random.default_rng(3), DATASETS[dataset]
    epochs = pd.Index(np.arange(1.0, EPOCHS + 1), name="epoch")
    judged = [f"{task}_{source}_{measure}" for task in tasks for source in SOURCES for measure in MEASURES]
    names = ["train_loss", "valid_Loss", "valid_Corr", *(judged if human else [])]
    histories = {seed: pd.DataFrame(rng.random((EPOCHS, len(names))), epochs, names) for seed in BEST}
    clips = pd.DataFrame({"split": ["test"] * 30 + ["train"] * 4, "text": "<b>secret</b>", "id": "clip$_$1"})
    truth = np.round(rng.uniform(-1, 1, 34) * 5) / 5 * facts.label_bound
    row = {"best_epoch": BEST[SEED]}
    for task in ["", *(f"{task}_" for task in tasks)]:
        clips[f"{task}score"] = np.float32(truth + rng.normal(0, 0.3 * facts.label_bound, 34))
        clips[f"{task}human" if task else "label"] = np.float32(truth)
        pair = clips[f"{task}score"][:30].to_numpy(), np.float32(truth)[:30]
        row |= {f"{task}{name}": value for name, value in METRICS[facts.metrics](*pair).items()}
    clips = clips if human else clips[[name for name in clips if not name.endswith("_human")]]
    rows = pd.DataFrame([row | {"best_epoch": BEST[7], "MAE": 9.0}, row], index=list(BEST))
    arrays = {task: np.float32(np.round(rng.uniform(-1, 1, (EPOCHS, 40)), 1)) for task in tasks}
    arrays |= {"id": np.arange(40).astype(str), "epoch": np.arange(1, EPOCHS + 1), "fusion": np.zeros(40, np.float32)}
    tasks = ["fusion", *tasks]
    settings = {"hyper_parameters": {"unimodal_labels": "generated"}}
    return RunData(Path("run"), settings, facts, tasks, rows, histories, SEED, clips, arrays if labels else None)


RUN = make_run()


@pytest.fixture(scope="module")
def drawn():
    return figures(RUN)


def test_curves_are_the_histories_and_mark_each_seeds_best_epoch(drawn):
    for axes, column in zip(drawn["curves"].axes, ("train_loss", "valid_Loss", "valid_Corr"), strict=True):
        for line, (seed, history) in zip(axes.lines, RUN.histories.items(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), history.index)
            np.testing.assert_array_equal(line.get_ydata(), history[column])
            assert list(line.get_xdata()[line.get_markevery()]) == [BEST[seed]]
            loss = history["valid_Loss"][BEST[seed]]
            assert line.get_label() == f"seed {seed}: {loss:.4f} at epoch {BEST[seed]}"


@pytest.mark.parametrize(("dataset", "shown"), [("demo", [1, 10, 11]), ("mosei", [1, 5, 10, 11])])
def test_bars_count_the_negative_labels_at_the_papers_epochs_and_the_last(dataset, shown):
    run = make_run(dataset, ["audio"], human=False)
    axes, values = figures(run)["labels"].axes[0], run.labels["audio"][np.array(shown) - 1]
    assert (values == 0).any()
    negative, positive = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert negative == list((values < 0).sum(axis=1)) and positive == list((values >= 0).sum(axis=1))
    assert [text.get_text() for text in axes.texts] == [str(count) for count in [*negative, *positive]]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks == [f"{'best' if epoch == BEST[SEED] else 'epoch'} {epoch}" for epoch in shown]


def test_distributions_have_all_clips_of_all_epochs(drawn):
    for axes, task in zip(drawn["labels"].axes[3:6], UNIMODAL, strict=True):
        shares = axes.collections[0].get_array().reshape(31, EPOCHS)
        np.testing.assert_allclose(shares.sum(axis=0), 100)
        np.testing.assert_allclose(shares[15], (abs(RUN.labels[task]) < 0.1 - 1e-6).mean(axis=1) * 100)
        assert [*axes.lines[0].get_xdata()] == [BEST[SEED]] * 2


def test_epochs_whose_labels_were_not_kept_are_empty():
    run = make_run(tasks=["audio"])
    kept = np.array([1, 2, 9, 10, 11])
    run.labels |= {"epoch": kept, "audio": run.labels["audio"][kept - 1]}
    shares = figures(run)["labels"].axes[1].collections[0].get_array().reshape(31, EPOCHS)
    assert (np.flatnonzero(~np.ma.getmaskarray(shares).all(axis=0)) + 1).tolist() == [*kept]


def test_quality_is_that_of_the_histories(drawn):
    panels = iter(drawn["label_quality"].axes)
    for measure in MEASURES:
        for task in UNIMODAL:
            lines = next(panels).lines
            expected = [history[f"{task}_label_{measure}"] for history in RUN.histories.values()]
            expected += [RUN.histories[SEED][f"{task}_{source}_{measure}"] for source in SOURCES]
            for line, values in zip(lines, expected, strict=True):
                np.testing.assert_array_equal(line.get_ydata(), values)


def test_predictions_are_the_test_clips_under_the_csvs_scores(drawn):
    clips, row = RUN.clips[:30], RUN.rows.loc[SEED]
    for axes, task in zip(drawn["predictions"].axes, ["", "text_", "audio_", "vision_"], strict=True):
        points = clips[[f"{task}human" if task else "label", f"{task}score"]]
        np.testing.assert_array_equal(axes.collections[0].get_offsets(), points)
        assert f"MAE {row[f'{task}MAE']:.4f}, Corr {row[f'{task}Corr']:.4f}" in axes.get_title()


@pytest.mark.parametrize("dataset", ["demo", "sims"])
def test_confusion_tables_give_the_csvs_accuracies(dataset):
    run = make_run(dataset, [], human=False)
    names = [name for name in run.rows if name.startswith(("Has0_acc", "Mult_acc"))]
    for axes, name in zip(figures(run)["confusion"].axes, names, strict=True):
        counts = np.array([int(text.get_text() or 0) for text in axes.texts]).reshape(int(name[-1]), -1)
        assert counts.sum() == 30 and np.trace(counts) / 30 == pytest.approx(run.rows[name][SEED], abs=5e-5)
        assert f"{name} {100 * run.rows[name][SEED]:.2f} %" in axes.get_title()


def test_svg_is_one_element_in_the_pages_colour_and_has_no_clip_in_it(drawn):
    for name, figure in drawn.items():
        svg = to_svg(figure)
        assert svg.startswith("<svg ") and "currentColor" in svg and ElementTree.fromstring(svg).get("aria-label")
        assert not any(word in svg for word in (INK, "secret", "clip$", "<metadata", "<style", 'id="axes'))
        assert name != "curves" or svg == to_svg(figure)


def test_png_has_a_white_background(drawn, tmp_path):
    to_png(drawn["confusion"], tmp_path / "work")  # whose name the caller changes
    assert Image.open(tmp_path / "work").convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.filterwarnings("error")
def test_figures_are_those_that_the_run_has_data_for():
    plain = {"curves", "predictions", "confusion"}
    assert set(figures(make_run(tasks=["audio"], labels=False))) == plain | {"label_quality"}
    assert set(figures(make_run(tasks=["audio"], human=False))) == plain | {"labels"}
    run = make_run(tasks=["audio"])
    run.clips.loc[:29, "audio_human"] = np.nan  # only the training split has human labels
    run.rows = run.rows.drop(columns=["audio_MAE", "audio_Corr"])
    assert len(figures(run)["predictions"].axes) == 1
    run.facts["hyper_parameters"]["unimodal_labels"] = "copied"
    assert set(figures(run)) == plain | {"label_quality"}
    fusion = figures(dataclasses.replace(make_run(tasks=[], human=False), seed=7))
    assert set(fusion) == plain and "MAE 9.0000" in fusion["predictions"].axes[0].get_title()
