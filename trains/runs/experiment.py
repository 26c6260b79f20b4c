"""What all seeds of a run share: the data, the pretrained encoder, the config and the device."""

import copy
import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from config.config_regression import Config, Dataset
from config.tuned import Tuned
from data.load_data import ClipDataset, Windows, evaluation_windows, training_windows
from data.store import FeatureStore
from models.pretrained_bert import Pretrained, fingerprint
from trains.runs.model_names import model_kind
from trains.runs.provenance import Provenance, make_provenance
from trains.runs.report import closing_report, published_scores
from trains.self_mm import encode_texts, evaluate
from trains.training import Training
from utils.errors import UserError
from utils.metrics import METRICS, metric_names
from utils.random_state import set_seed
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
    tuned: Tuned | None = None  # where the config comes from

    def __post_init__(self) -> None:
        self.kind = model_kind(self.model_name)
        self.clips = {
            name: ClipDataset(
                split, self.device, self.config.max_clips_per_pass, ALONE if name == "test" else self.ranks
            )
            for name, split in self.store.splits.items()
        }
        self.metrics = METRICS[self.dataset.metrics]
        self.metric_names = metric_names(self.metrics)

    @functools.cached_property
    def provenance(self) -> Provenance:
        data_and_encoder = {
            "model": self.model_name,
            "dataset": self.dataset.name,
            "aligned": self.store.aligned,
            "features_sha1": self.store.sha1,
            "bert": fingerprint(self.encoder.bert),
        }
        return make_provenance(data_and_encoder, self.config, self.device, self.ranks.size)

    def with_config(self, config: Config) -> "Experiment":
        """The same data and encoder, for a training with other hyper-parameters."""
        other = copy.copy(self)
        other.config = config
        other.__dict__.pop("provenance", None)
        return other

    def describe(self) -> str:
        """What the log opens with."""
        clips = ", ".join(f"{len(clips)} {split}" for split, clips in self.clips.items())
        lines = [f"{self.model_name} on {self.dataset.name}: {clips} clips"]
        lines += [" ".join(f"{key}={value}" for key, value in dataclasses.asdict(self.config).items())]
        lines += [str(self.provenance)]
        if self.tuned is not None:
            was, now = self.tuned.trained_on, self.provenance.data_and_encoder()
            other = [key for key in now if was.get(key, now[key]) != now[key]]
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
        return self.kind.network(self.config, bert_config, *widths, bert).to(self.device)

    def new_training(self, seed: int) -> tuple[Training, Windows, Windows]:
        """A training at its beginning, and the windows that it learns from and is judged by."""
        set_seed(seed)
        model = self.new_model()
        if not self.config.use_finetune:
            for clips in self.clips.values():
                if not clips.has_text_vectors:
                    encode_texts(model, evaluation_windows(clips))
        train = training_windows(self.clips["train"], self.config, seed, self.num_workers)
        valid = evaluation_windows(self.clips["valid"], self.num_workers)
        self.ranks.broadcast_tensors(model.state_dict().values())  # kinds of processors differ in what they draw
        return Training(model, train, self.config), train, valid

    def test(self, model: nn.Module) -> dict[str, float]:
        """The fusion score's metrics on the test split; MAE and Corr of each modality alone that the file has labels for."""
        values, scores = evaluate(model.to(self.device), evaluation_windows(self.clips["test"]), self.metrics)
        return values | self._unimodal_metrics(scores)

    def metrics_of_row(self, row: dict[str, str]) -> dict[str, float]:
        """What `test` returned, from the row of the seeds CSV that it went into. Raises UserError where that is damaged."""
        names = [*self.metric_names, *self._unimodal_metrics(self._guess_the_mean())]
        try:
            return {name: float(row.get(name) or "nan") for name in names}
        except ValueError as error:
            raise UserError(f"the seeds CSV: the row of seed {row['seed']} is damaged ({error}); remove it") from None

    def report(self, title: str, tests: list[dict[str, float]]) -> str:
        """The closing table over what `test` returned for each seed."""
        guess = self._guess_the_mean()
        values = self.metrics(guess["fusion"], self.store.splits["test"].labels["fusion"]) | self._unimodal_metrics(
            guess
        )
        own = bool(self.store.extractors)  # features of own making, which no published score is about
        published = {} if own else published_scores(self.dataset.name, self.config.tasks)
        return closing_report(title, tests, values, published)

    def _guess_the_mean(self) -> dict[str, np.ndarray]:
        """For each task in use that has labels, the mean of its training labels, as scores (N,) on the test split."""
        train, test = (self.store.splits[name].labels for name in ("train", "test"))
        return {task: np.full_like(test[task], train[task].mean()) for task in self.config.task_names if task in test}

    def _unimodal_metrics(self, scores: dict[str, np.ndarray]) -> dict[str, float]:
        """How each modality's scores (N,) agree with labels of its own on the test split, where there are any."""
        values = {}
        truth = self.store.splits["test"].labels
        for task in [task for task in scores if task != "fusion" and task in truth]:
            metrics = self.metrics(scores[task], truth[task])
            values |= {f"{task}_{name}": metrics[name] for name in ("MAE", "Corr")}
        return values
