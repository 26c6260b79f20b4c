"""Rebuilds extractors from their descriptions in feature files and checkpoints."""

from data.extractors import Extractor, describe, difference
from data.extractors.audio import LibrosaAudio
from data.extractors.vision import MediapipeFaces, NoFaces, OpenFace
from utils.errors import UserError

EXTRACTORS = {"audio": [LibrosaAudio], "vision": [OpenFace, MediapipeFaces, NoFaces]}


def rebuild(modality: str, description: dict, model: str, **local: object) -> Extractor:
    """Returns the extractor with this description. Raises UserError if this version of the program lacks it.

    model: the checkpoint, for error messages. local: values of the LOCAL fields.
    """
    name = description.get("name")
    kind = next((kind for kind in EXTRACTORS[modality] if kind.name == name), None)
    if kind is None:
        raise UserError(
            f"{model} was trained on {modality} features of {name or 'unknown origin'}, which cannot be extracted here; "
            "extract them as for training and score them with --features"
        )
    try:
        extractor = kind(**description.get("settings", {}), **local)
    except TypeError:
        raise UserError(f"{model}: unknown settings of the {modality} extractor {name}") from None
    if mismatch := difference(description, describe(extractor)):
        raise UserError(
            f"{model} was trained on {modality} features of {mismatch}; install that version, or extract the training "
            "features again and retrain"
        )
    return extractor
