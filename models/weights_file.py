"""Reads weights from untrusted files: a .pth holds a dict of tensors, never code; the released code has other names for them."""

import re
import tarfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.errors import UserError, first_line

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys below which training scripts save weights
# Prefix of a released name -> prefix of ours.
PREFIXES = {
    "Model.text_model.model.": "text_encoder.bert.",
    "Model.audio_model.rnn.": "audio_encoder.lstm.", "Model.audio_model.linear_1.": "audio_encoder.linear.",
    "Model.video_model.rnn.": "vision_encoder.lstm.", "Model.video_model.linear_1.": "vision_encoder.linear.",
    "Model.post_fusion_layer_": "heads.fusion.layer_", "Model.post_text_layer_": "heads.text.layer_",
    "Model.post_audio_layer_": "heads.audio.layer_", "Model.post_video_layer_": "heads.vision.layer_",
}  # fmt: skip
# BERT's pooler, which has no effect, and a constant that old versions of transformers saved.
UNUSED = ("text_encoder.bert.pooler.", "text_encoder.bert.embeddings.position_ids")


def check_finite(weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises UserError, which begins with the source, if a tensor holds a non-finite value."""
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        what = f"{len(broken)} of {len(weights)} tensors hold non-finite values, such as {first_line(broken[0])}"
        raise UserError(f"{source}: {what}; its training diverged, or the file is damaged")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a .pth, on the CPU. Raises UserError for anything but a dict of tensors."""
    try:
        if tarfile.is_tarfile(path):  # as torch wrote before 0.1.10; torch.load unpacks it to a temporary folder
            raise ValueError("a tar file")
        with warnings.catch_warnings(action="ignore"):  # about old pickle protocols
            # Not mapped: torch compares the storages' sizes with the file only where it reads them itself.
            weights = torch.load(path, map_location="cpu", weights_only=True)
        # A dict may come with attributes that hide its methods.
        weights = dict(dict.items(weights))
        for name in WRAPPERS:
            weights = dict(dict.items(weights.get(name, weights)))
        # torch checks neither the indices of sparse tensors nor, before 2.13, the extent of quantized ones.
        dense = [isinstance(value, Tensor) and value.layout == torch.strided for value in weights.values()]
        if not all(dense) or any(not isinstance(name, str) or weights[name].is_quantized for name in weights):
            raise TypeError("holds values that are not named, dense tensors")
        # DataParallel adds a part to each name.
        return {re.sub(r"(^|\.)module\.", r"\1", name): tensor for name, tensor in weights.items()}
    except Exception as error:  # a damaged file can fail in any way
        reason = f"not a file of weights, or damaged ({type(error).__name__}: {first_line(error)})"
        raise UserError(f"{path}: {reason}; expected one that torch.save(model.state_dict(), path) wrote") from None


def load_released_weights(model: nn.Module, weights: dict[str, Tensor], source: Path | str) -> None:
    """Copies released weights into a SelfMM. Raises UserError for a missing, unknown or differently shaped tensor."""
    renamed = {}
    for name, tensor in weights.items():
        for theirs, ours in PREFIXES.items():
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        if not name.startswith(UNUSED):
            renamed[name] = tensor
    try:
        model.load_state_dict(renamed)
    except RuntimeError as error:
        problem = first_line(str(error).partition("\n")[2])  # the line after "Error(s) in loading state_dict"
        advice = "repeat its training's hyper-parameters, features and encoder: --preset, --set, --dataPath, --bert"
        raise UserError(f"{source}: {problem} {advice}") from None
    check_finite(model.state_dict(), source)
