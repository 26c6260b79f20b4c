"""What all seeds of a run share: the data, the pretrained encoder, the config and the device."""

import copy
import dataclasses
import hashlib
import json
import logging
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertModel, PreTrainedTokenizerBase

from config.command_line import chosen_settings
from config.config_regression import DATASETS, Config, Dataset, data_root, make_config
from data.demo import ensure_demo
from data.load_data import ClipDataset, evaluation_windows, training_windows
from data.store import FeatureStore, open_store
from data.tokens import check_tokens, make_tokeniser
from models import MODELS
from models.pretrained_bert import find_bert, fingerprint, load_bert, load_tokenizer
from trains import TRAINERS
from trains.self_mm import encode_texts, evaluate
from utils.checkpoint import load_checkpoint, read_facts, save_checkpoint
from utils.functions import UserError, commit, pick_device, set_seed, versions
from utils.metrics import METRICS
from utils.released_checkpoint import load_released_weights, read_released_file


@dataclass
class Experiment:
    model_name: str
    dataset: Dataset
    config: Config
    device: torch.device
    num_workers: int
    store: FeatureStore
    bert: BertModel
    tokenizer: PreTrainedTokenizerBase | None

    def __post_init__(self) -> None:
        passes = self.config.max_clips_per_pass
        self.clips = {name: ClipDataset(split, passes) for name, split in self.store.splits.items()}
        self.metrics = METRICS[self.dataset.metrics]
        # What tells this run from others, for checkpoints and result rows.
        self.facts = {
            "model": self.model_name,
            "dataset": self.dataset.name,
            "aligned": self.store.aligned,
            "features_sha1": self.store.sha1,
            "bert": fingerprint(self.bert),
            "versions": versions(),
            "commit": commit(),
        }
        decisive = [self.facts[key] for key in ("model", "dataset", "aligned", "features_sha1", "bert")]
        # Ten hex digits that differ where two runs can give different results for the same seed.
        self.facts["config_hash"] = hashlib.sha1(json.dumps([self.config.identity(), decisive]).encode()).hexdigest()[
            :10
        ]

    def new_model(self) -> nn.Module:
        """The pretrained encoder, with new, random layers behind it."""
        bert = copy.deepcopy(self.bert)
        widths = (self.store.audio_width, self.store.vision_width)
        return MODELS[self.model_name](self.config, bert.config.to_dict(), *widths, bert).to(self.device)

    def train(self, seed: int, folder: Path, log: logging.Logger) -> dict[str, float]:
        """Trains one model and keeps its best checkpoint in a folder. Returns how long it took."""
        set_seed(seed)
        model = self.new_model()
        if not self.config.use_finetune:
            for clips in self.clips.values():
                if clips.text_vectors is None:
                    encode_texts(model, evaluation_windows(clips, self.device), self.config)
        train = training_windows(self.clips["train"], self.config, seed, self.device, self.num_workers)
        valid = evaluation_windows(self.clips["valid"], self.device, self.num_workers)

        start = time.perf_counter()
        for result in TRAINERS[self.model_name](model, train, valid, self.config, self.metrics):
            if result.is_best:
                save_checkpoint(model, folder, self.facts | {"seed": seed, "epoch": result.epoch}, self.tokenizer)
            log.info(f"seed {seed}  {result}")
        seconds = time.perf_counter() - start
        return {
            "best_epoch": result.best_epoch,
            "epochs": result.epoch,
            "seconds": round(seconds, 2),
            "seconds_per_epoch": round(seconds / result.epoch, 2),
        }

    def test(self, model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """The fusion score's metrics on the test split, and each task's scores (N,) in the file's order."""
        return evaluate(
            model.to(self.device), evaluation_windows(self.clips["test"], self.device), self.metrics, self.config
        )


def open_experiment(args: Namespace) -> Experiment:
    """Opens and checks all that the flags name. Raises UserError before anything but the features' cache is written."""
    dataset = _dataset(args, "mosi")
    config = make_config(dataset.name, args.preset, **chosen_settings(args))
    path = _feature_path(args, dataset, args.aligned)
    source = find_bert(args.bert, dataset)
    return _open(args, dataset, config, path, args.aligned, source, load_bert(source))


def open_checkpoint(args: Namespace) -> tuple[Experiment, nn.Module]:
    """What --test_only names, with the data to test it on: a checkpoint folder, or a .pth of the released code."""
    path = args.test_only
    if not path.exists():
        raise UserError(f"--test_only {path}: nothing there; name a checkpoint folder, or a .pth of the released code")
    if path.is_file():
        experiment = open_experiment(args)
        model = experiment.new_model()
        load_released_weights(model, read_released_file(path), path)
        return experiment, model

    if args.settings or args.preset or args.tasks or args.bert:
        raise UserError(f"--test_only {path}: holds its own model; leave out --set, --preset, --tasks and --bert")
    facts = read_facts(path)
    model = load_checkpoint(path, MODELS[args.modelName])
    dataset = _dataset(args, facts.get("dataset", "mosi"))
    config = dataclasses.replace(model.hyper_parameters, **chosen_settings(args))
    aligned = args.aligned or facts.get("aligned", False)
    features = _feature_path(args, dataset, aligned)
    experiment = _open(args, dataset, config, features, aligned, str(path / "tokenizer"), model.text_encoder.bert)
    widths = {"audio": experiment.store.audio_width, "vision": experiment.store.vision_width}
    for key, width in widths.items():
        if width != model.frame_widths[key]:
            raise UserError(
                f"{features}: {key} is {width} wide, and {path} was trained on a width of {model.frame_widths[key]}"
            )
    return experiment, model


def _dataset(args: Namespace, default: str) -> Dataset:
    if args.modelName not in MODELS:
        raise UserError(f"--modelName {args.modelName}: unknown; there are: {', '.join(MODELS)}")
    dataset = DATASETS[args.datasetName or default]
    if dataset.name == "demo":
        ensure_demo(data_root() / "DEMO")
    return dataset


def _feature_path(args: Namespace, dataset: Dataset, aligned: bool) -> Path:
    path = args.dataPath or dataset.feature_file(aligned)
    if not path.exists():
        raise UserError(
            f"{path}: no feature file there; name it with --dataPath, or set its root folder in config/config_regression.py "
            "(DATA_ROOT) or SELF_MM_DATA; --datasetName demo needs no file"
        )
    return path


def _open(
    args: Namespace, dataset: Dataset, config: Config, path: Path, aligned: bool, source: str, bert: BertModel
) -> Experiment:
    """source: the folder or hub name that has the encoder's vocabulary."""
    scores = ["Loss", *METRICS[dataset.metrics](np.ones(2), np.ones(2))]
    if config.KeyEval not in scores:
        raise UserError(
            f"config: KeyEval = {config.KeyEval!r}: unknown for {dataset.name}; there are: {', '.join(scores)}"
        )
    tokenizer = load_tokenizer(source)
    tokeniser = make_tokeniser(tokenizer) if tokenizer is not None else None
    store = open_store(path, dataset, aligned, tokeniser, args.cache_dir)
    check_tokens(store, bert.config, tokenizer, source)
    device = pick_device(args.gpu_ids[0] if args.gpu_ids else None)
    return Experiment(args.modelName, dataset, config, device, args.num_workers, store, bert, tokenizer)
