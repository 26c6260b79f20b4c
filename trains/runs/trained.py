"""A trained model: what its checkpoint holds and says, and whether features are of the kind that it knows."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from config.config_regression import DATASETS, Dataset
from data.extractors import difference
from data.schema import EXTRACTORS, plain_extractors
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
    encoder: Pretrained  # its own text encoder, with the tokenizer that it was trained with
    dataset: Dataset
    aligned: bool
    extractors: dict[str, dict]  # modality -> what made its training features; {} where nobody said

    def check_features(self, store: FeatureStore, path: Path) -> None:
        """Raises UserError where features are of another kind than it was trained on."""
        for key, width in (("audio", store.audio_width), ("vision", store.vision_width)):
            mine, theirs = self.extractors.get(key), store.extractors.get(key)
            if mine and theirs and (differs := difference(mine, theirs)):
                raise UserError(f"{path}: {self.folder} was trained on {key} features of {differs}")
            if width != self.model.frame_widths[key]:
                raise UserError(
                    f"{path}: {key} is {width} wide, and {self.folder} was trained on a width of "
                    f"{self.model.frame_widths[key]}"
                )


def load_trained(folder: Path, model_name: str | None = None, dataset_name: str | None = None) -> Trained:
    """A checkpoint folder. Raises UserError where it is incomplete, damaged or of another model.

    model_name, dataset_name: None: what the checkpoint says.
    """
    facts = read_metadata(folder)
    model = load_checkpoint(folder, model_kind(model_name or str(facts.get("model", "self_mm"))).network)
    name = dataset_name or str(facts.get("dataset"))
    if name not in DATASETS:
        raise UserError(f"{folder}: doesn't say on which dataset it was trained; add --datasetName")
    words = current_folder(folder) / "tokenizer"
    tokenizer = load_tokenizer(str(words)) if words.is_dir() else None
    encoder = Pretrained(model.text_encoder.bert, tokenizer, str(folder))
    try:
        extractors = plain_extractors(facts.get(EXTRACTORS))
    except ValueError as error:
        raise UserError(f"{folder}/config.json: {error}") from None
    return Trained(folder, model, encoder, DATASETS[name], facts.get("aligned") is True, extractors)
