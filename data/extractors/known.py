"""The extractors by name, and back from what a feature file or a checkpoint says of one."""

from data.extractors import Extractor, describe, difference
from data.extractors.audio import LibrosaAudio
from data.extractors.vision import MediapipeFaces, NoFaces, OpenFace
from utils.errors import UserError

KNOWN = {
    "audio": {kind.name: kind for kind in (LibrosaAudio,)},
    "vision": {kind.name: kind for kind in (OpenFace, MediapipeFaces, NoFaces)},
}


def rebuild(modality: str, described: dict, whose: str, **local: object) -> Extractor:
    """The extractor that features were made by.

    described: what `describe` said of it. local: its fields that are this machine's. whose: who was trained on the features.
    Raises UserError where it is another one than can be had here.
    """
    name = described.get("name")
    kind = KNOWN[modality].get(name) if isinstance(name, str) else None
    if kind is None:
        raise UserError(
            f"{whose} was trained on {modality} features of {name or 'an unknown origin'}, which can't be extracted here; "
            "extract them as for training, and score them with --features"
        )
    try:
        extractor = kind(**described.get("settings", {}), **local)
    except TypeError:
        raise UserError(f"{whose}: its settings of {name} are not those of this program") from None
    if differs := difference(described, describe(extractor)):
        raise UserError(
            f"{whose} was trained on {modality} features of {differs}; install that version, or extract the training "
            "features anew and train on them"
        )
    return extractor
