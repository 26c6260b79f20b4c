"""report.html: a run's tables and figures in one page, which opens from disk and loads nothing; page.html is its template."""

import base64
import hashlib
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from config.config_regression import make_config, presets_of
from trains.runs.figures.quality import quality_table
from trains.runs.figures.run_data import CASES, RunData, disagreement
from trains.runs.report import as_printed, scale_of, score_tables


def make_page(run: RunData, figures: dict[str, str]) -> str:
    """The page. figures: name -> <svg> of trains.runs.figures.draw, the only markup that is trusted; any may be missing."""
    guess, unimodal = run.facts["mean_guess"], run.tasks[1:]
    tests = run.rows[[name for name in run.rows if name in (*guess, "Loss")]]
    training = run.rows[["best_epoch", "epochs", "seconds"]].T.apply(lambda seed: seed.map("{:.10g}".format))
    labels, scores = ([name, *(f"{task}_{name}" for task in unimodal)] for name in ("label", "score"))
    train, test = (run.clips[run.clips["split"] == split] for split in ("train", "test"))
    train = train.assign(disagreement=disagreement(train[labels])).query("disagreement > 0")
    test = test.assign(error=(test["score"] - test["label"]).abs(), disagreement=disagreement(test[scores]))
    human = [f"{task}_human" for task in unimodal if f"{task}_human" in train]
    measures = ["error", "disagreement"] if unimodal else ["error"]
    # Clip texts, ids and settings may hold anything: autoescape turns all but Markup into text.
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(template)
    return page.render(
        run=run,
        figures={name: Markup(svg) for name, svg in figures.items()},
        results=score_tables(tests.to_dict("records"), guess, run.facts["published"]),
        useless=not tests["MAE"].mean(skipna=False) < guess["MAE"],
        seeds=pd.concat([as_printed((tests * scale_of(tests)).T), training.rename_axis("").reset_index()]),
        quality=quality_table(run),
        cases=train.nlargest(CASES, "disagreement")[["id", "text", *labels, *scores, *human]],
        clips=test.sort_values("error", ascending=False, kind="stable")[["id", "text", "label", *scores, *measures]],
        settings=_settings(run.facts),
        sha256=lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    )


def _settings(facts: dict) -> pd.DataFrame:
    """All hyper-parameters, and the values of the dataset's default table that differ; these first."""
    usual, name = asdict(make_config(facts["dataset"])), presets_of(facts["dataset"])[0]
    rows = [(key, value, usual[key] if value != usual[key] else "") for key, value in facts["hyper_parameters"].items()]
    return pd.DataFrame(sorted(rows, key=lambda row: row[2] == ""), columns=["hyper-parameter", "value", name])
