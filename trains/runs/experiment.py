"""What all seeds of a run share: the data, the pretrained encoder, the config and the device."""

import copy
import dataclasses
import functools
import hashlib
import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from config.command_line import chosen_settings
from config.config_regression import DATASETS, Config, Dataset, data_root, make_config
from config.tuned import Tuned
from data.demo import ensure_demo
from data.load_data import ClipDataset, Windows, evaluation_windows, training_windows
from data.schema import SPLITS
from data.store import FeatureStore, open_store
from data.tokens import check_tokens, make_tokeniser, vocabulary_hash
from models.pretrained_bert import Pretrained, find_bert, fingerprint, load_pretrained
from models.ulgm import ULGM
from models.weights_file import read_weights
from trains.runs.model_names import model_kind
from trains.runs.provenance import commit, versions
from trains.runs.published import published_scores
from trains.runs.released_checkpoint import load_released_weights
from trains.runs.report import closing_report
from trains.runs.trained import load_trained
from trains.self_mm import encode_texts, evaluate
from trains.training import Training
from utils.errors import UserError
from utils.files import whole
from utils.metrics import METRICS, metric_names
from utils.random_state import set_seed
from utils.ranks import ALONE, Ranks


@dataclass
class Experiment:
    model_name: str
    dataset: Dataset
    config: Config
    device: torch.device
    num_workers: int
    store: FeatureStore
    encoder: Pretrained
    ranks: Ranks = ALONE
    tuned: Tuned | None = None  # where the config comes from

    def __post_init__(self) -> None:
        self.clips = {
            name: ClipDataset(
                split, self.device, self.config.max_clips_per_pass, ALONE if name == "test" else self.ranks
            )
            for name, split in self.store.splits.items()
        }
        self.metrics = METRICS[self.dataset.metrics]
        self.metric_names = metric_names(self.metrics)
        self.decisive = {
            "model": self.model_name,
            "dataset": self.dataset.name,
            "aligned": self.store.aligned,
            "features_sha1": self.store.sha1,
            "bert": fingerprint(self.encoder.bert),
        }
        # What a repeated or resumed run needs besides, to come to the same numbers to the bit.
        self.conditions = {
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else _cpu(),
            "threads": torch.get_num_threads(),
            "ranks": self.ranks.size,
            "max_clips_per_pass": self.config.max_clips_per_pass,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }

    @functools.cached_property
    def facts(self) -> dict[str, object]:
        """What tells this run from others, for checkpoints and result rows."""
        return {**self.decisive, "config_hash": self.config_hash, "versions": versions(), "commit": commit()}

    @property
    def config_hash(self) -> str:
        """Runs that agree in it are one experiment: their seeds go into one line of the summary."""
        identity = json.dumps([self.decisive, self.config.identity()])
        return hashlib.sha1(identity.encode()).hexdigest()[:10]

    def with_config(self, config: Config) -> "Experiment":
        """The same data and encoder, for a training with other hyper-parameters."""
        other = copy.copy(self)
        other.config = config
        other.__dict__.pop("facts", None)
        return other

    def describe(self) -> str:
        """What the log opens with."""
        clips = ", ".join(f"{len(clips)} {split}" for split, clips in self.clips.items())
        lines = [f"{self.model_name} on {self.dataset.name}: {clips} clips"]
        lines += [" ".join(f"{key}={value}" for key, value in dataclasses.asdict(self.config).items())]
        lines += ["; ".join(f"{key} {value}" for key, value in (self.facts | self.conditions).items())]
        if self.tuned is not None:
            was = self.tuned.trained_on
            other = [key for key in self.decisive if was.get(key, self.decisive[key]) != self.decisive[key]]
            elsewhere = f"; now with another {', another '.join(other)}" if other else ""
            lines += [f"hyper-parameters from {self.tuned.path}, {self.tuned.origin}{elsewhere}"]
        replaced = {where: count for where, count in self.store.replaced.items() if count}
        lines += [f"{where}: {count} values are not finite and are read as 0" for where, count in replaced.items()]
        return "\n".join(lines)

    def new_model(self) -> nn.Module:
        """The pretrained encoder, with new, random layers behind it."""
        bert = copy.deepcopy(self.encoder.bert)
        bert_config = bert.config.to_dict()
        bert_config.pop("_name_or_path", None)  # a path of this machine has no place in a checkpoint
        widths = (self.store.audio_width, self.store.vision_width)
        return model_kind(self.model_name).network(self.config, bert_config, *widths, bert).to(self.device)

    def new_training(self, seed: int) -> tuple[Training, Windows, Windows]:
        """A training at its beginning, and the windows that it learns from and is judged by."""
        set_seed(seed)
        model = self.new_model()
        if not self.config.use_finetune:
            for clips in self.clips.values():
                if not clips.has_text_vectors:
                    encode_texts(model, evaluation_windows(clips), self.config)
        train = training_windows(self.clips["train"], self.config, seed, self.num_workers)
        valid = evaluation_windows(self.clips["valid"], self.num_workers)
        self.ranks.take_from_first(model.state_dict().values())  # kinds of processors differ in what they draw
        return Training(model, train, self.config, seed), train, valid

    def test(self, model: nn.Module) -> dict[str, float]:
        """The fusion score's metrics on the test split; MAE and Corr of each modality alone that the file has labels for."""
        values, scores = evaluate(
            model.to(self.device), evaluation_windows(self.clips["test"]), self.metrics, self.config
        )
        return values | self._alone(scores)

    def tested(self, row: dict[str, str]) -> dict[str, float]:
        """What `test` returned, from the row of the seeds CSV that it went into. Raises UserError where that is damaged."""
        names = [*self.metric_names, *self._alone(self._guess())]
        try:
            return {name: float(row.get(name) or "nan") for name in names}
        except ValueError as error:
            raise UserError(f"the seeds CSV: the row of seed {row['seed']} is damaged ({error}); remove it") from None

    def report(self, title: str, tests: list[dict[str, float]]) -> str:
        """The closing table over what `test` returned for each seed."""
        guess = self._guess()
        values = self.metrics(guess["fusion"], self.store.splits["test"].labels["fusion"]) | self._alone(guess)
        own = bool(self.store.extractors)  # features of own making, which no published score is about
        published = {} if own else published_scores(self.dataset.name, self.config.tasks)
        return closing_report(title, tests, values, published)

    def _guess(self) -> dict[str, np.ndarray]:
        """For each task in use that has labels, the mean of its training labels, as scores (N,) on the test split."""
        train, test = (self.store.splits[name].labels for name in ("train", "test"))
        return {task: np.full_like(test[task], train[task].mean()) for task in self.config.task_names if task in test}

    def _alone(self, scores: dict[str, np.ndarray]) -> dict[str, float]:
        """How each modality's scores (N,) agree with labels of its own on the test split, where there are any."""
        values = {}
        truth = self.store.splits["test"].labels
        for task in [task for task in scores if task != "fusion" and task in truth]:
            metrics = self.metrics(scores[task], truth[task])
            values |= {f"{task}_{name}": metrics[name] for name in ("MAE", "Corr")}
        return values


def _cpu() -> str:
    """With the instructions that PyTorch uses: others round differently."""
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def open_experiment(
    args: Namespace, device: torch.device, ranks: Ranks = ALONE, splits: tuple[str, ...] = SPLITS
) -> Experiment:
    """Opens and checks all that the flags name, the cheap things first.

    splits: what the experiment is handed; a sweep is handed no test split. Raises UserError before anything is written but the features' cache, and the demo corpus.
    """
    model_kind(args.modelName)
    dataset = DATASETS[args.datasetName or "mosi"]
    config = base_config(args)
    known = metric_names(METRICS[dataset.metrics])
    if config.KeyEval not in known:
        raise UserError(f"config: KeyEval = {config.KeyEval!r}: unknown for {dataset.name}; known: {', '.join(known)}")
    path = find_features(args.dataPath, dataset, args.aligned)
    encoder = load_pretrained(find_bert(args.bert, dataset))
    store = open_features(path, dataset, args.aligned, encoder, args.cache_dir)
    store = dataclasses.replace(store, splits={name: store.splits[name] for name in splits})
    labels = torch.from_numpy(store.splits["train"].labels["fusion"])
    ULGM(labels, {"fusion": 1}, config.H, config.exclude_zero).check()
    return Experiment(args.modelName, dataset, config, device, args.num_workers, store, encoder, ranks, args.tuned)


def base_config(args: Namespace, **overrides: object) -> Config:
    """The hyper-parameters that the flags name, but for the overrides. Raises UserError for those that don't exist or fit."""
    preset = None if args.tuned is not None else args.preset
    return make_config(args.datasetName or "mosi", preset, **(chosen_settings(args) | overrides))


def open_checkpoint(args: Namespace, device: torch.device) -> tuple[Experiment, nn.Module]:
    """What --test_only names, with the data to test it on: a checkpoint folder, or a .pth of the released code."""
    path = whole(args.test_only)
    if not path.exists():
        raise UserError(f"--test_only {path}: nothing there; name a checkpoint folder, or a .pth of the released code")
    if path.is_file():
        experiment = open_experiment(args, device)
        model = experiment.new_model()
        load_released_weights(model, read_weights(path), path)
        return experiment, model

    if args.settings or args.preset or args.params or args.tasks or args.bert:
        raise UserError(
            f"--test_only {path}: holds its own model; leave out --set, --preset, --params, --tasks and --bert"
        )
    trained = load_trained(path, args.modelName, args.datasetName)
    dataset, aligned = trained.dataset, args.aligned or trained.aligned
    config = dataclasses.replace(trained.model.hyper_parameters, **chosen_settings(args))
    features = find_features(args.dataPath, dataset, aligned)
    store = open_features(features, dataset, aligned, trained.encoder, args.cache_dir)
    trained.check_features(store, features)
    experiment = Experiment(args.modelName, dataset, config, device, args.num_workers, store, trained.encoder)
    return experiment, trained.model


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
    tokeniser = make_tokeniser(encoder.tokenizer) if encoder.tokenizer is not None else None
    store = open_store(path, dataset, aligned, tokeniser, cache_dir)
    vocabulary = store.extractors.get("text", {}).get("settings", {}).get("vocabulary")
    if encoder.tokenizer is not None and vocabulary not in (None, vocabulary_hash(encoder.tokenizer)):
        raise UserError(
            f"{path}: its token ids were made with another vocabulary than that of the text encoder {encoder.source}; name the "
            "encoder that it was extracted for with --bert"
        )
    check_tokens(store, encoder.bert.config, encoder.tokenizer, encoder.source)
    return store
