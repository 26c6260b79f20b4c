"""The model card of a checkpoint: its README.md, which the Hugging Face hub shows and indexes. Its text: model_card.md."""

import functools
import math
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Template

from config.config_regression import DATASETS, TASKS
from data.schema import OFFICIAL
from models.hub import METADATA

compiled = functools.cache(Template)  # compiling takes as long as saving a small model
CORPORA = {"MOSI": "CMU-MOSI", "MOSEI": "CMU-MOSEI", "SIMS": "CH-SIMS"}
KINDS = {"MAE": "mae", "Corr": "pearsonr", "acc": "accuracy", "F1": "f1"}  # part of a metric's name -> the hub's name


def model_card(config: dict, test: dict[str, float] | None = None) -> str:
    """The card as Markdown. config: the content of config.json. test: the test's metrics; None before the training ended."""
    facts = config[METADATA]
    name, sha1 = str(facts.get("dataset")), str(facts.get("features_sha1"))
    dataset, official = DATASETS.get(name), OFFICIAL.get(sha1)
    # Another feature file than the authors' may hold any clips, whatever dataset's settings it is trained with.
    corpus = next((CORPORA[word] for word in (official or "").split() if word in CORPORA), None)
    task = {"task_type": "video-classification", "task_name": "Multimodal sentiment analysis", "dataset_split": "test"}
    task |= {"dataset_type": (corpus or "other").lower(), "dataset_name": corpus or f"feature file {sha1[:10]}"}
    results = [
        EvalResult(**task, metric_name=metric, metric_type=kind, metric_value=round(value, 4))
        for metric, value in (test or {}).items()
        for part, kind in KINDS.items()
        if part in metric and not metric.startswith(TASKS) and math.isfinite(value)  # of all modalities together
    ]
    front = {"license": "other", "license_name": "mit-code-only", "library_name": "self-mm"}
    front |= {"tags": ["multimodal-sentiment-analysis"], "pipeline_tag": task["task_type"]}
    front |= {"language": dataset and dataset.language.replace("cn", "zh"), "base_model": facts.get("base_model")}
    front["datasets"] = corpus and [corpus.lower()]
    if results:
        front |= {"metrics": sorted({result.metric_type for result in results}), "eval_results": results}
        front["model_name"] = f"{facts.get('model')}-{name}-{facts.get('seed')}"
    template = compiled(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    words = {"facts": facts, "settings": config["hyper_parameters"], "dataset": dataset, "official": official}
    words |= {"corpus": corpus, "test": test}
    return template.render(card_data=ModelCardData(**front).to_yaml(), **words)
