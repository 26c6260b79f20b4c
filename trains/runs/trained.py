"""A trained model with everything that its checkpoint records about it."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from config.config_regression import DATASETS, Dataset
from data.extractors import difference
from data.schema import EXTRACTORS
from data.store import FeatureStore
from models.pretrained_bert import Pretrained, load_tokenizer
from trains.runs.checkpoint import load_checkpoint, read_metadata
from trains.runs.model_names import model_kind
from utils.errors import UserError
from utils.files import current_folder


@dataclass(frozen=True)
class Trained:
    folder: Path
    model: nn.Module
    encoder: Pretrained  # the model's own text encoder, with its tokenizer
    dataset: Dataset
    aligned: bool | None  # None: unknown
    extractors: dict[str, dict]  # modality -> the extractor of its training features; {} if unknown

    def check_features(self, store: FeatureStore, path: Path) -> None:
        """Raises UserError if features have another extractor or width than the training features."""
        for key, width in (("audio", store.audio_width), ("vision", store.vision_width)):
            trained_on, extractor = self.extractors.get(key), store.extractors.get(key)
            if trained_on and extractor and (differs := difference(trained_on, extractor)):
                raise UserError(f"{path}: {self.folder} was trained on {key} features of {differs}")
            if width != (expected := self.model.frame_widths[key]):
                raise UserError(f"{path}: {key} is {width} wide, but {self.folder} was trained on width {expected}")


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
    dataset = replace(dataset, text_length=length or dataset.text_length)
    return Trained(folder, model, encoder, dataset, metadata.get("aligned"), metadata.get(EXTRACTORS) or {})
