"""Everything that the seeds of a run share: data, pretrained encoder, config, device."""

import copy
import functools
import logging
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import nn

from config.config_regression import Config, Dataset, presets_of
from config.tuned import Tuned
from data.load_data import ClipDataset, Windows, evaluation_windows, training_windows
from data.store import FeatureStore
from models.pretrained_bert import Pretrained, fingerprint
from trains.runs.model_names import network_and_fit
from trains.runs.provenance import Provenance, make_provenance
from trains.runs.report import published_scores, score_tables
from trains.self_mm import encode_texts, evaluate
from trains.training import Training
from utils.device import describe_device
from utils.errors import UserError
from utils.metrics import METRICS, metric_names
from utils.ranks import ALONE, Ranks


@dataclass
class Experiment:
    model_name: str
    dataset: Dataset
    config: Config
    device: torch.device
    store: FeatureStore
    encoder: Pretrained
    num_workers: int = 0
    ranks: Ranks = ALONE
    tuned: Tuned | None = None  # the source of the config, if a sweep chose it
    others: dict[str, str] = field(default_factory=dict)  # what is not the dataset's own: features, bert, aligned

    def __post_init__(self) -> None:
        self.network, self.fit = network_and_fit(self.model_name)
        self.metrics = functools.partial(METRICS[self.dataset.metrics], round_all=self.config.round_scores)
        self.metric_names = metric_names(self.metrics)
        self.clips = {}
        for name, split in self.store.splits.items():
            ranks = ALONE if name == "test" else self.ranks  # rank 0 tests alone
            self.clips[name] = ClipDataset(split, self.device, self.config.max_clips_per_pass, ranks)

    @functools.cached_property
    def provenance(self) -> Provenance:
        source = {"model": self.model_name, "dataset": self.dataset.name, "aligned": self.store.aligned}
        source |= {"features_sha1": self.store.sha1, "bert": fingerprint(self.encoder.bert)}
        return make_provenance(source, self.config, self.device, self.ranks.size, self.others)

    def with_config(self, config: Config) -> "Experiment":
        """The same data and encoder with other hyper-parameters."""
        other = copy.copy(self)
        other.config = config
        for derived in ("provenance", "mean_guess"):
            other.__dict__.pop(derived, None)
        return other

    def describe(self, log: logging.Logger, jobs: int) -> None:
        """Logs what is run and, in the file alone, all settings. jobs: of this run; each has its own device."""
        clips = ", ".join(f"{len(clips)} {split}" for split, clips in self.clips.items())
        default, settings = presets_of(self.dataset.name)[0], self.provenance.settings
        differs = f"settings: the {default} table" + f", except {settings}" * (settings != default)
        where = describe_device(self.device) if jobs == 1 else f"{jobs} jobs at once"
        lines = [f"{self.model_name} on {self.dataset.name}: {clips} clips, {where}", differs]
        if len(self.config.task_names) > 1 and self.config.unimodal_labels == "generated":
            lines += ["in epochs 1 and 2 the unimodal tasks have weight 0: expect the train loss to jump in epoch 3"]
        if self.tuned is not None:
            before, now = self.tuned.trained_on, self.provenance.data_and_encoder()
            changed = [key for key in now if before.get(key, now[key]) != now[key]]
            warning = f"; but this run has another {', another '.join(changed)}" if changed else ""
            lines += [f"hyper-parameters from {self.tuned.path}, {self.tuned.origin}{warning}"]
        log.info("\n".join([*lines, *self.notes()]))
        log.debug(" ".join(f"{key}={value}" for key, value in asdict(self.config).items()))
        log.debug("; ".join(f"{key} {value}" for key, value in asdict(self.provenance).items()))

    def notes(self) -> list[str]:
        """What is left out of the data or read otherwise, and what about it is probably not meant."""
        undefined = {name: ", ".join(self.undefined_metrics(name)) for name in self.store.splits}
        doubts = [f"warning: {name}: its labels leave {lost} undefined" for name, lost in undefined.items() if lost]
        return self.store.notes + doubts

    def undefined_metrics(self, split: str) -> list[str]:
        """The metrics that even perfect predictions of a split don't have, such as the correlation of equal labels."""
        labels = self.store.splits[split].labels["fusion"]
        return [name for name, value in self.metrics(labels, labels).items() if not np.isfinite(value)]

    def new_model(self) -> nn.Module:
        """The pretrained encoder with new, random layers on top."""
        bert = copy.deepcopy(self.encoder.bert)
        bert_config = bert.config.to_dict()
        bert_config.pop("_name_or_path", None)  # a local path: checkpoints may be published
        widths = (self.store.audio_width, self.store.vision_width)
        return self.network(self.config, bert_config, *widths, bert).to(self.device)

    def new_training(self, seed: int) -> tuple[Training, Windows, Windows]:
        """A training before its first epoch, with its training and validation windows. Raises UserError if it can't learn."""
        config, clips = self.config, len(self.clips["train"])
        if not config.updates_weights(clips):
            window = f"{clips} training clips do not fill a window of {config.update_epochs} x {config.batch_size}"
            fix = "add --set keep_last_window=True, or lower batch_size or update_epochs"
            raise UserError(f"{window}, so no weight would ever change: {fix}")
        torch.manual_seed(seed)  # also all GPUs
        model = self.new_model()
        if not self.config.use_finetune:
            for clips in self.clips.values():
                if clips.text_vectors is None:
                    encode_texts(model, evaluation_windows(clips))
        train = training_windows(self.clips["train"], self.config, seed, self.num_workers)
        valid = evaluation_windows(self.clips["valid"], self.num_workers)
        # Ranks on different kinds of processors draw different random weights.
        self.ranks.broadcast_tensors(model.state_dict().values())
        return Training(model, train, self.config), train, valid

    def test(self, model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """On the test split: metrics of the fusion score, MAE and Corr of each modality with human labels; and all scores."""
        metrics, scores = evaluate(model.to(self.device), evaluation_windows(self.clips["test"]), self.metrics)
        return metrics | self._unimodal_metrics(scores), scores

    @functools.cached_property
    def mean_guess(self) -> dict[str, float]:
        """The metrics of guessing each task's mean training label; as `test` returns them, but without Loss."""
        train, test = (self.store.splits[name].labels for name in ("train", "test"))
        tasks = [task for task in self.config.task_names if task in train and task in test]
        scores = {task: np.full_like(test[task], train[task].mean()) for task in tasks}
        return self.metrics(scores["fusion"], test["fusion"]) | self._unimodal_metrics(scores)

    @property
    def published(self) -> dict[str, dict[str, float]]:
        """Published scores by source: for the official features, which record no extractors."""
        return {} if self.store.extractors else published_scores(self.dataset.name, self.config.tasks)

    def report(self, tests: list[dict[str, float]]) -> str:
        """The closing tables. tests: metrics for each seed, as `test` returns them."""
        tables = score_tables(tests, self.mean_guess, self.published)
        lines = [f"{title}\n{table.to_string(index=False)}" for title, table in tables.items()]
        if not np.mean([test["MAE"] for test in tests]) < self.mean_guess["MAE"]:
            lines += ["warning: the MAE is no better than that of guessing the mean: the model learned nothing of use"]
        return "\n".join(lines)

    def _unimodal_metrics(self, scores: dict[str, np.ndarray]) -> dict[str, float]:
        """Compares each modality's scores (N,) on the test split with its own human labels, if it has any."""
        labels, chosen = self.store.splits["test"].labels, {}
        for task in scores:
            if task != "fusion" and task in labels:
                metrics = self.metrics(scores[task], labels[task])
                chosen |= {f"{task}_{name}": metrics[name] for name in ("MAE", "Corr")}
        return chosen
