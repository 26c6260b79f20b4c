"""Opens and checks the inputs of a run: features, text encoder, a trained model. Writes nothing but caches."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from config import inputs
from config.command_line import RunOptions
from config.config_regression import DATASETS, Dataset, data_root
from data.demo import ensure_demo
from data.extractors import difference
from data.schema import EXTRACTORS, OFFICIAL, SPLITS, UNIMODAL_LABELS
from data.store import FeatureStore, open_store
from data.tokens import check_tokens, vocabulary_hash
from models.pretrained_bert import Pretrained, load_pretrained, load_tokenizer
from models.self_mm import DTYPES
from models.ulgm import ULGM
from trains.runs.checkpoint import load_checkpoint, read_metadata
from trains.runs.experiment import Experiment
from trains.runs.model_names import network_and_fit
from utils.errors import UserError, printable
from utils.files import current_folder
from utils.metrics import METRICS, metric_names
from utils.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Trained:
    folder: Path
    model: nn.Module
    encoder: Pretrained  # the model's own text encoder, with its tokenizer
    dataset: Dataset
    aligned: bool | None  # None: unknown
    extractors: dict[str, dict]  # modality -> the extractor of its training features; {} if unknown

    def open_features(self, named: Path | None, aligned: bool = False, **settings: object) -> FeatureStore:
        """As open_features below. Raises UserError, also for another extractor or width than the training features'."""
        aligned = aligned or bool(self.aligned)
        path = find_features(named, self.dataset, aligned)
        store = open_features(path, self.dataset, aligned, self.encoder, **settings)
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
    network, _ = network_and_fit(model_name or str(metadata.get("model", "self_mm")))
    model = load_checkpoint(folder, network)
    if (name := dataset_name or str(metadata.get("dataset"))) not in DATASETS:
        raise UserError(f"{folder}: does not record the dataset it was trained on; add --datasetName")
    vocabulary = current_folder(folder) / "tokenizer"
    tokenizer = load_tokenizer(str(vocabulary)) if vocabulary.is_dir() else None
    encoder = Pretrained(model.text_encoder.bert, tokenizer, str(folder))
    dataset = replace(DATASETS[name], text_length=model.hyper_parameters.text_length or DATASETS[name].text_length)
    return Trained(folder, model, encoder, dataset, metadata.get("aligned"), metadata.get(EXTRACTORS) or {})


def open_experiment(options: RunOptions, device: torch.device, splits=SPLITS, ranks: Ranks = ALONE) -> Experiment:
    """Opens a training's inputs, of these splits alone. Raises UserError, before it writes more than caches and the demo."""
    config, dataset, aligned = options.config(), options.dataset, options.aligned
    keys = metric_names(METRICS[dataset.metrics])
    if config.KeyEval not in keys:
        raise UserError(f"config: KeyEval = {config.KeyEval!r}: not a metric of {dataset.name}: {', '.join(keys)}")
    dataset = replace(dataset, text_length=config.text_length or dataset.text_length)
    path = find_features(options.data_path, dataset, aligned)
    encoder = load_pretrained(inputs.find_bert(options.bert, dataset))
    store = open_features(path, dataset, aligned, encoder, cache_dir=options.cache_dir)
    if config.text_length and store.has_ids:
        raise UserError(f"config: text_length: {path} has token ids (text_bert), which are not cut; leave it out")
    store = replace(store, splits={name: store.splits[name] for name in splits})
    labels = store.splits["train"].labels
    if config.unimodal_labels == "human" and (missing := [task for task in config.task_names if task not in labels]):
        lacks = ", ".join(UNIMODAL_LABELS[task] for task in missing)
        raise UserError(f"--unimodal_labels human: {path} lacks {lacks}; leave the flag out, or choose other --tasks")
    fusion = torch.from_numpy(labels["fusion"])
    ULGM(fusion, {"fusion": 1}, config.H, config.exclude_zero, config.unimodal_labels, {}).check()
    others = {"aligned": ""} if aligned else {}
    own = [(data_root() / place).resolve() for place in (*dataset.unaligned, *dataset.aligned)]
    if path.resolve() not in own and store.sha1 not in OFFICIAL:
        others["features"] = path.stem
    if options.bert not in (None, inputs.HUB[dataset.language]) and Path(options.bert).resolve() != dataset.bert_folder:
        others["bert"] = Path(options.bert).name
    settings = {"num_workers": options.num_workers, "ranks": ranks, "tuned": options.tuned, "others": others}
    experiment = Experiment(options.model_name, dataset, config, device, store, encoder, **settings)
    if config.KeyEval in experiment.undefined_metrics("valid"):
        raise UserError(f"{path}: valid: KeyEval = {config.KeyEval} is undefined for its labels; select by Loss")
    return experiment


def open_checkpoint(folder: Path, options: RunOptions, device: torch.device) -> tuple[Experiment, nn.Module]:
    """Loads a checkpoint folder and the data to test it on. Raises UserError, also if the two do not match."""
    trained = load_trained(folder, options.model_name, options.dataset_name)
    if options.aligned and trained.aligned is False:
        raise UserError(f"--aligned: {folder} was trained on unaligned features; leave the flag out")
    model = trained.model
    model.hyper_parameters = config = replace(model.hyper_parameters, **options.hyper_parameters)
    model.to(DTYPES[config.precision])
    store = trained.open_features(options.data_path, options.aligned, cache_dir=options.cache_dir)
    return Experiment(options.model_name, trained.dataset, config, device, store, trained.encoder), model


def find_features(named: Path | None, dataset: Dataset, aligned: bool) -> Path:
    """As config.inputs.find_features, which the demo's file is created for."""
    if dataset.name == "demo":
        ensure_demo(data_root() / "DEMO")
    return inputs.find_features(named, dataset, aligned)


def open_features(path: Path, dataset: Dataset, aligned: bool, encoder: Pretrained, **settings: object) -> FeatureStore:
    """As open_store, with its settings. Raises UserError, also if the token ids are not the encoder's."""
    store = open_store(path, dataset, aligned, encoder.tokenizer, **settings)
    vocabulary = store.extractors.get("text", {}).get("settings", {}).get("vocabulary")
    if encoder.tokenizer is not None and vocabulary not in (None, vocabulary_hash(encoder.tokenizer)):
        problem = f"the vocabulary of its token ids is not that of the text encoder {encoder.source}"
        raise UserError(f"{path}: {problem}; name the encoder it was extracted for with --bert")
    doubts = check_tokens(store.splits, encoder.bert.config, encoder.tokenizer, encoder.source)
    return replace(store, notes=store.notes + [printable(f"warning: {doubt}") for doubt in doubts])
