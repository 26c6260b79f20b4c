"""report.html: nothing that a clip says is more than text, and every number is that of the run's files."""

import base64
import hashlib
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config.config_regression import DATASETS, make_config
from trains.runs.figures.page import make_page
from trains.runs.figures.run_data import RunData, disagreement

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></svg></td></table>]]>-->{{ 7 * 7 }}"
TEST, CASES = "id, text, label, score", "id, text, label, text label"
COLUMNS = [f"{task}{name}" for name in ("label", "score") for task in ("", "text_", "audio_", "vision_")]
QUALITY = [f"text_{source}_{name}" for source in ("label", "copied", "shuffled") for name in ("MAE", "Corr", "sign")]


class Page(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.tags, self.rows = [], []  # (name, attributes); cells: [text, data-v], after [] for each table
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self.rows += [[]] if tag in ("table", "tr") else []
        if tag in ("td", "th"):
            self.rows[-1].append(["", dict(attrs).get("data-v")])

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1][0] in ("td", "th", "button", "span"):
            self.rows[-1][-1][0] += text.strip("\n")

    def table(self, head: str, exact: bool = False) -> list[list]:
        """Below the head that begins so: the cells' texts; or the full values of those that are rounded."""
        heads = [", ".join(text for text, _ in row)[: len(head)] for row in self.rows]
        rows = takewhile(len, self.rows[heads.index(head) + 1 :])
        return [[float(value) if exact else text for text, value in row if value or not exact] for row in rows]


def make_run(tasks: str = "MTAV", dataset: str = "demo", words: str = "fine") -> RunData:
    """30 training and 4 test clips, the last without a score; two seeds of two epochs; text has human labels."""
    config, rng = make_config(dataset, tasks=tasks, H=2.5), np.random.default_rng(1)
    clips = pd.DataFrame(rng.normal(size=(34, 8)).round(7), columns=COLUMNS)
    clips = clips.assign(split=["train"] * 30 + ["test"] * 4, id=[f"{words}{n}" for n in range(34)], text=words)
    clips.loc[33, "score"] = np.nan
    rows = pd.DataFrame({"Has0_acc_2": [0.5, 0.75], "MAE": [0.25882632, 0.75], "Corr": np.nan}, index=[1, 2])
    rows = rows.assign(text_MAE=0.5, best_epoch=2.0, epochs=2.0, seconds=[1.25, 30])
    epochs = {seed: pd.DataFrame(rng.random((2, 9)).round(4), index=[1, 2], columns=QUALITY) for seed in (1, 2)}
    facts = {"model": "self_mm", "dataset": dataset, "hyper_parameters": asdict(config), "clips": {"train": 30}}
    facts |= dict.fromkeys(("settings", "features_sha1", "versions"), words) | {"published": {"paper": {"MAE": 0.713}}}
    facts["mean_guess"] = dict.fromkeys(["Has0_acc_2", "MAE", "Corr", *["text_MAE"] * ("T" in tasks)], 0.6)
    return RunData(Path(), facts, DATASETS[dataset], [*config.task_names], rows, epochs, 1, clips, None)


def test_clip_texts_and_ids_are_only_text_and_only_the_script_of_the_page_may_run():
    page = Page(html := make_page(make_run(words=HOSTILE), {"curves": "<svg><path/></svg>"}))
    assert [tag for tag, _ in page.tags if tag in ("script", "img", "svg")] == ["svg", "script"]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "src"]
    rows = page.table(TEST) + page.table(CASES)
    assert all(row[0].startswith(HOSTILE) and row[1] == HOSTILE for row in rows) and len(rows) == 4 + 20
    script = hashlib.sha256(html.split("<script>")[1].split("</script>")[0].encode())
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    sources = f"img-src data:; script-src 'sha256-{base64.b64encode(script.digest()).decode()}'; "
    assert policy.startswith(f"default-src 'none'; style-src 'unsafe-inline'; {sources}")


@pytest.mark.parametrize(("tasks", "dataset"), [("MTAV", "demo"), ("MV", "sims"), ("M", "mosi")])
def test_test_clips_are_as_in_the_file_and_ordered_by_error(tasks, dataset):
    run = make_run(tasks, dataset)
    page, test = Page(make_page(run, {})), run.clips[30:]
    scores = [name for name in COLUMNS[4:] if name == "score" or name[:-6] in run.tasks]
    test = test.assign(error=(test["score"] - test["label"]).abs(), disagreement=disagreement(test[scores]))
    test = test.sort_values("error", ascending=False)  # nan last
    columns = ["label", *scores, "error", "disagreement"][: None if run.tasks[1:] else -1]
    np.testing.assert_array_equal(page.table(TEST, exact=True), test[columns])
    rows = page.table(TEST)
    assert [row[0] for row in rows] == [*test["id"]] and rows[0][2] == f"{test['label'].iloc[0]:.3f}"
    assert rows[-1][3] == "-" and ("td", {"class": "text", "lang": "zh" if dataset == "sims" else "en"}) in page.tags


def test_tables_have_the_numbers_of_the_files():
    page = Page(make_page(run := make_run(), {}))
    means = {name: values for name, *values in page.table("metric, mean, std, guessing the mean, paper")}
    assert means["MAE"] == ["0.5044", "0.2456", "0.6000", "0.7130"] and means["Corr"] == ["-", "-", "0.6000", "-"]
    seeds = {name: values for name, *values in page.table("metric, 1, 2")}
    assert seeds["MAE"] == ["0.2588", "0.7500"] and seeds["Has0_acc_2"] == ["50.00", "75.00"]
    assert seeds["best_epoch"] == seeds["epochs"] == ["2", "2"] and seeds["seconds"] == ["1.25", "30"]
    quality = pd.DataFrame(page.table("labels, MAE, Corr, sign")).set_index(0).astype(float)
    assert [*quality.index] == ["text, generated", "text, copied", "text, shuffled"]
    best = sum(history.loc[2] for history in run.histories.values()) / 2
    np.testing.assert_allclose(quality.to_numpy().ravel(), best, atol=5.1e-5)  # printed with 4 digits
    widest = disagreement(run.clips[:30][COLUMNS[:4]]).sort_values(ascending=False).index[:20]
    np.testing.assert_array_equal(page.table(CASES, exact=True), run.clips.loc[widest, COLUMNS])
    first, *others = page.table("hyper-parameter, value, released")
    assert first == ["H", "2.5", "3.0"] and not any(usual for *_, usual in others)
    assert {row[0]: row[1] for row in [first, *others]} == {k: str(v) for k, v in run.facts["hyper_parameters"].items()}


def test_the_page_shows_what_the_run_has():
    run, words = make_run(), ("#drawings", "--save_labels", "#quality", "#cases", "disagreement", "no better than")
    without_human = replace(run, histories={1: run.histories[1][[]]}, facts=run.facts | {"mean_guess": {"MAE": 0.5}})
    runs = [(run, {}), (run, {"labels": "<svg></svg>"}), (without_human, {}), (make_run("M"), {})]
    shown = ["".join("01"[word in page] for word in words) for page in (make_page(*run) for run in runs)]
    assert shown == ["111110", "101110", "110111", "000000"]
