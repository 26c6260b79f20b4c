"""Opens and checks what a run works on: features, text encoder, checkpoint. Nothing is written but caches."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from config.config_regression import Config, Dataset, data_root
from config.tuned import Tuned
from data.demo import ensure_demo
from data.schema import SPLITS
from data.store import FeatureStore, open_store
from data.tokens import check_tokens, make_tokenizer, vocabulary_hash
from models.pretrained_bert import Pretrained, find_bert, load_pretrained
from models.ulgm import ULGM
from models.weights_file import read_weights
from trains.runs.experiment import Experiment
from trains.runs.model_names import model_kind
from trains.runs.released_checkpoint import load_released_weights
from trains.runs.trained import load_trained
from utils.errors import UserError
from utils.metrics import METRICS, metric_names
from utils.ranks import ALONE, Ranks


def open_experiment(
    model_name: str,
    dataset: Dataset,
    config: Config,
    device: torch.device,
    *,
    features: Path | None = None,
    aligned: bool = False,
    bert: str | None = None,
    cache_dir: Path | None = None,
    num_workers: int = 0,
    ranks: Ranks = ALONE,
    splits: tuple[str, ...] = SPLITS,
    tuned: Tuned | None = None,
) -> Experiment:
    """Opens and checks all that a training needs, the cheap things first.

    features, bert: None: the dataset's own. splits: what the experiment is handed; a sweep is handed no test split.
    tuned: where the config comes from. Raises UserError before anything is written but the features' cache, and the demo corpus.
    """
    model_kind(model_name)
    known = metric_names(METRICS[dataset.metrics])
    if config.KeyEval not in known:
        raise UserError(f"config: KeyEval = {config.KeyEval!r}: unknown for {dataset.name}; known: {', '.join(known)}")
    path = find_features(features, dataset, aligned)
    encoder = load_pretrained(find_bert(bert, dataset))
    store = open_features(path, dataset, aligned, encoder, cache_dir)
    store = dataclasses.replace(store, splits={name: store.splits[name] for name in splits})
    labels = torch.from_numpy(store.splits["train"].labels["fusion"])
    ULGM(labels, {"fusion": 1}, config.H, config.exclude_zero).check()
    return Experiment(model_name, dataset, config, device, store, encoder, num_workers, ranks, tuned)


def open_released_checkpoint(path: Path, experiment: Experiment) -> nn.Module:
    """The model of a .pth of the released code, which holds no config: the experiment's is taken. Raises UserError."""
    model = experiment.new_model()
    load_released_weights(model, read_weights(path), path)
    return model


def open_checkpoint(
    folder: Path,
    model_name: str,
    dataset_name: str | None,
    device: torch.device,
    *,
    overrides: dict[str, object],
    features: Path | None = None,
    aligned: bool = False,
    cache_dir: Path | None = None,
    num_workers: int = 0,
) -> tuple[Experiment, nn.Module]:
    """A checkpoint folder's model, with the data to test it on. Raises UserError where either can't be had, or they don't fit.

    dataset_name: None: what the checkpoint says. overrides: hyper-parameters that may differ from those of its training.
    """
    trained = load_trained(folder, model_name, dataset_name)
    dataset, aligned = trained.dataset, aligned or trained.aligned
    model = trained.model
    model.hyper_parameters = dataclasses.replace(model.hyper_parameters, **overrides)
    path = find_features(features, dataset, aligned)
    store = open_features(path, dataset, aligned, trained.encoder, cache_dir)
    trained.check_features(store, path)
    experiment = Experiment(model_name, dataset, model.hyper_parameters, device, store, trained.encoder, num_workers)
    return experiment, model


def find_features(named: Path | None, dataset: Dataset, aligned: bool) -> Path:
    """The feature file that --dataPath names, or the dataset's own; the demo's is made. Raises UserError if it isn't there."""
    if dataset.name == "demo":
        ensure_demo(data_root() / "DEMO")
    path = named or dataset.feature_file(aligned)
    if not path.exists():
        raise UserError(
            f"{path}: no feature file there; name it with --dataPath, or set its root folder in config/config_regression.py "
            "(DATA_ROOT) or SELF_MM_DATA; --datasetName demo needs no file"
        )
    return path


def open_features(
    path: Path, dataset: Dataset, aligned: bool, encoder: Pretrained, cache_dir: Path | None
) -> FeatureStore:
    """The features, with token ids that fit the encoder."""
    tokenizer = make_tokenizer(encoder.tokenizer) if encoder.tokenizer is not None else None
    store = open_store(path, dataset, aligned, tokenizer, cache_dir)
    vocabulary = store.extractors.get("text", {}).get("settings", {}).get("vocabulary")
    if encoder.tokenizer is not None and vocabulary not in (None, vocabulary_hash(encoder.tokenizer)):
        raise UserError(
            f"{path}: its token ids were made with another vocabulary than that of the text encoder {encoder.source}; name the "
            "encoder that it was extracted for with --bert"
        )
    check_tokens(store, encoder.bert.config, encoder.tokenizer, encoder.source)
    return store
