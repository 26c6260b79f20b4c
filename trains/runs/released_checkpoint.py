"""Loads weights saved by the released code, which has other names for them."""

from pathlib import Path

from torch import Tensor, nn

from models.weights_file import check_finite
from utils.errors import UserError, first_line

# Prefix of a released name -> prefix of ours.
PREFIXES = {
    "Model.text_model.model.": "text_encoder.bert.",
    "Model.audio_model.rnn.": "audio_encoder.lstm.",
    "Model.audio_model.linear_1.": "audio_encoder.linear.",
    "Model.video_model.rnn.": "vision_encoder.lstm.",
    "Model.video_model.linear_1.": "vision_encoder.linear.",
    "Model.post_fusion_layer_": "heads.fusion.layer_",
    "Model.post_text_layer_": "heads.text.layer_",
    "Model.post_audio_layer_": "heads.audio.layer_",
    "Model.post_video_layer_": "heads.vision.layer_",
}
# BERT's pooler, which has no effect, and a constant that old versions of transformers saved.
UNUSED = ("text_encoder.bert.pooler.", "text_encoder.bert.embeddings.position_ids")


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
        advice = (
            "repeat the hyper-parameters, features and encoder of its training: --preset, --set, --dataPath, --bert"
        )
        raise UserError(f"{source}: {problem} {advice}") from None
    check_finite(model.state_dict(), source)
