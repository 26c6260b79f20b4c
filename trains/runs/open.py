"""Opens and checks the inputs of a run: features, text encoder, a trained model. Writes nothing but caches."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from config import inputs
from config.config_regression import DATASETS, Config, Dataset, data_root
from config.inputs import HUB, find_bert
from data.demo import ensure_demo
from data.extractors import difference
from data.schema import EXTRACTORS, OFFICIAL, SPLITS
from data.store import FeatureStore, open_store
from data.tokens import check_tokens, vocabulary_hash
from models.pretrained_bert import Pretrained, load_pretrained, load_tokenizer
from models.self_mm import DTYPES
from models.ulgm import ULGM
from trains.runs.checkpoint import load_checkpoint, read_metadata
from trains.runs.experiment import Experiment
from trains.runs.model_names import model_kind
from utils.errors import UserError, printable
from utils.files import current_folder
from utils.metrics import METRICS, metric_names


@dataclass(frozen=True)
class Trained:
    folder: Path
    model: nn.Module
    encoder: Pretrained  # the model's own text encoder, with its tokenizer
    dataset: Dataset
    aligned: bool | None  # None: unknown
    extractors: dict[str, dict]  # modality -> the extractor of its training features; {} if unknown

    def open_features(
        self, named: Path | None, aligned: bool, cache_dir: Path | None, to_score: str | None = None
    ) -> FeatureStore:
        """As open_features below. Raises UserError, also for another extractor or width than the training features'."""
        path = find_features(named, self.dataset, aligned)
        store = open_features(path, self.dataset, aligned, self.encoder, cache_dir, to_score)
        for key, width in (("audio", store.audio_width), ("vision", store.vision_width)):
            trained_on, extractor = self.extractors.get(key), store.extractors.get(key)
            if trained_on and extractor and (differs := difference(trained_on, extractor)):
                raise UserError(f"{path}: {self.folder} was trained on {key} features of {differs}")
            if width != (expected := self.model.frame_widths[key]):
                raise UserError(f"{path}: {key} is {width} wide, but {self.folder} was trained on width {expected}")
        return store


def load_trained(folder: Path, model_name: str | None = None, dataset_name: str | None = None) -> Trained:
    """Loads a checkpoint; None: the name that it records. Raises UserError if it is damaged or another model's."""
    metadata = read_metadata(folder)
    model = load_checkpoint(folder, model_kind(model_name or str(metadata.get("model", "self_mm"))).network)
    name = dataset_name or str(metadata.get("dataset"))
    if name not in DATASETS:
        raise UserError(f"{folder}: does not record the dataset it was trained on; add --datasetName")
    vocabulary = current_folder(folder) / "tokenizer"
    tokenizer = load_tokenizer(str(vocabulary)) if vocabulary.is_dir() else None
    encoder = Pretrained(model.text_encoder.bert, tokenizer, str(folder))
    dataset, length = DATASETS[name], model.hyper_parameters.text_length
    dataset = dataclasses.replace(dataset, text_length=length or dataset.text_length)
    return Trained(folder, model, encoder, dataset, metadata.get("aligned"), metadata.get(EXTRACTORS) or {})


def open_experiment(
    model_name: str, dataset: Dataset, config: Config, device: torch.device, *, features: Path | None = None,
    aligned: bool = False, bert: str | None = None, cache_dir: Path | None = None, splits: tuple[str, ...] = SPLITS,
    **settings,
) -> Experiment:  # fmt: skip
    """Opens and checks the inputs of a training. Raises UserError, before anything but caches and the demo is written.

    features, bert: None for the dataset's own. splits: those to see; not test in a sweep. settings: of the Experiment.
    """
    keys = metric_names(METRICS[dataset.metrics])
    if config.KeyEval not in keys:
        raise UserError(f"config: KeyEval = {config.KeyEval!r}: not a metric of {dataset.name}: {', '.join(keys)}")
    dataset = dataclasses.replace(dataset, text_length=config.text_length or dataset.text_length)
    path = find_features(features, dataset, aligned)
    encoder = load_pretrained(find_bert(bert, dataset))
    store = open_features(path, dataset, aligned, encoder, cache_dir)
    if config.text_length and store.has_ids:
        raise UserError(f"config: text_length: {path} has token ids (text_bert), which are not cut; leave it out")
    store = dataclasses.replace(store, splits={name: store.splits[name] for name in splits})
    labels = torch.from_numpy(store.splits["train"].labels["fusion"])
    ULGM(labels, {"fusion": 1}, config.H, config.exclude_zero).check()
    others = {"aligned": ""} if aligned else {}
    if features is not None and store.sha1 not in OFFICIAL:
        others["features"] = path.stem
    if bert not in (None, HUB[dataset.language]):
        others["bert"] = Path(bert).name
    experiment = Experiment(model_name, dataset, config, device, store, encoder, **settings, others=others)
    if config.KeyEval in experiment.undefined_metrics("valid"):
        raise UserError(f"{path}: valid: KeyEval = {config.KeyEval} is undefined for its labels; select by Loss")
    return experiment


def open_checkpoint(
    folder: Path, model_name: str, dataset_name: str | None, device: torch.device, *, overrides: dict[str, object],
    features: Path | None = None, aligned: bool = False, cache_dir: Path | None = None, num_workers: int = 0,
) -> tuple[Experiment, nn.Module]:  # fmt: skip
    """Loads a checkpoint folder and the data to test it on. Raises UserError, also if the two do not match.

    dataset_name: None for the checkpoint's own. overrides: hyper-parameters to change after training.
    """
    trained = load_trained(folder, model_name, dataset_name)
    if aligned and trained.aligned is False:
        raise UserError(f"--aligned: {folder} was trained on unaligned features; leave the flag out")
    model = trained.model
    model.hyper_parameters = config = dataclasses.replace(model.hyper_parameters, **overrides)
    model.to(DTYPES[config.precision])
    store = trained.open_features(features, aligned or bool(trained.aligned), cache_dir)
    return Experiment(model_name, trained.dataset, config, device, store, trained.encoder, num_workers), model


def find_features(named: Path | None, dataset: Dataset, aligned: bool) -> Path:
    """As config.inputs.find_features, which the demo's file is created for."""
    if dataset.name == "demo":
        ensure_demo(data_root() / "DEMO")
    return inputs.find_features(named, dataset, aligned)


def open_features(
    path: Path, dataset: Dataset, aligned: bool, encoder: Pretrained, cache_dir: Path | None,
    to_score: str | None = None,
) -> FeatureStore:  # fmt: skip
    """As open_store, and compares the token ids with the encoder. Raises UserError if they are not the encoder's."""
    store = open_store(path, dataset, aligned, encoder.tokenizer, cache_dir, to_score)
    vocabulary = store.extractors.get("text", {}).get("settings", {}).get("vocabulary")
    if encoder.tokenizer is not None and vocabulary not in (None, vocabulary_hash(encoder.tokenizer)):
        problem = f"the vocabulary of its token ids is not that of the text encoder {encoder.source}"
        raise UserError(f"{path}: {problem}; name the encoder it was extracted for with --bert")
    doubts = check_tokens(store.splits, encoder.bert.config, encoder.tokenizer, encoder.source)
    return dataclasses.replace(store, notes=store.notes + [printable(f"warning: {doubt}") for doubt in doubts])
