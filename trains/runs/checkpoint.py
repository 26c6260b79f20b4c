"""A seed's checkpoint: a folder with the model of its best epoch. Reading it runs no code.

Files: config.json and model.safetensors (see models/hub.py), labels.csv (generated), tokenizer/, and README.md, the
card that the hub shows and indexes (its text: model_card.md).
"""

import contextlib
import functools
import io
import json
import math
from pathlib import Path

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Template
from torch import nn
from transformers import PreTrainedTokenizerBase

from config.config_regression import DATASETS, TASKS
from config.inputs import HUB_NAME
from data.schema import EXTRACTORS, OFFICIAL, plain_extractors
from models.hub import CARD, CONFIG, LABELS, METADATA, TOKENIZER, WEIGHTS, checksum
from models.weights_file import check_finite
from utils.errors import UserError, csv_text, first_line
from utils.files import current_folder, replacing

compiled = functools.cache(Template)  # compiling takes as long as saving a small model
CORPORA = {"MOSI": "CMU-MOSI", "MOSEI": "CMU-MOSEI", "SIMS": "CH-SIMS"}
KINDS = {"MAE": "mae", "Corr": "pearsonr", "acc": "accuracy", "F1": "f1"}  # part of a metric's name -> the hub's name


def save_checkpoint(
    model: nn.Module, folder: Path, metadata: dict, tokenizer: PreTrainedTokenizerBase | None, labels: pd.DataFrame
) -> None:
    """Writes a checkpoint; the previous one stays until the new one is complete. Raises UserError if the disk is full.

    tokenizer: to score new texts without the encoder's folder. labels: a row per training clip, with one for each task.
    """
    with replacing(folder) as work:
        model.save_pretrained(work, config=model._hub_mixin_config)
        config = json.loads((work / CONFIG).read_text(encoding="utf-8"))
        encoder = model.text_encoder.bert.config.name_or_path
        is_on_hub = HUB_NAME.fullmatch(encoder) and not Path(encoder).exists()  # a local path may not be published
        config[METADATA] = metadata | {"base_model": encoder if is_on_hub else None, "checksum": checksum(work)}
        (work / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        (work / CARD).write_text(model_card(config), encoding="utf-8")
        labels.assign(id=labels["id"].map(csv_text)).to_csv(work / LABELS, index=False)
        if tokenizer is not None:
            tokenizer.save_pretrained(work / TOKENIZER)


def add_test_scores(folder: Path, test: dict[str, float]) -> None:
    """Writes the scores of the test, by metric, into a checkpoint's model card. Raises UserError if the disk is full."""
    current = current_folder(folder)
    config = json.loads((current / CONFIG).read_text(encoding="utf-8"))
    with replacing(current / CARD) as work:
        work.write_text(model_card(config, test), encoding="utf-8")


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
    template = compiled(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8"))
    words = {"facts": facts, "settings": config["hyper_parameters"], "dataset": dataset, "official": official}
    words |= {"corpus": corpus, "test": test}
    return template.render(card_data=ModelCardData(**front).to_yaml(), **words)


def read_metadata(folder: Path) -> dict:
    """How a checkpoint was trained, as far as it is recorded. Raises UserError if config.json is missing or damaged."""
    try:
        metadata = json.loads((current_folder(folder) / CONFIG).read_text(encoding="utf-8")).get(METADATA, {})
        plain_extractors(metadata.get(EXTRACTORS), folder / CONFIG)  # raises UserError if they are malformed
        return metadata
    except (OSError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(f"{folder}/config.json: cannot be read ({first_line(error)})") from None


def load_checkpoint(folder: Path, model_class: type[nn.Module]) -> nn.Module:
    """The model, in evaluation mode. Raises UserError if a file is missing or damaged, or describes another model."""
    expected = read_metadata(folder).get("checksum")
    current = current_folder(folder)
    try:
        if expected not in (None, checksum(current)):
            raise ValueError(f"{WEIGHTS} does not match its checksum in config.json")
        with contextlib.redirect_stdout(io.StringIO()):  # the hub's mixin prints to it
            model = model_class.from_pretrained(current)
    except Exception as error:  # damaged files fail in many ways
        reason = first_line(" ".join(str(error).split()))
        raise UserError(f"{folder}: cannot be loaded as {model_class.__name__} ({reason})") from None
    check_finite(model.state_dict(), folder)
    return model
