"""Reads weights under the released code's names."""

from pathlib import Path

from torch import Tensor, nn

from utils.errors import UserError, first_line

# The released name's beginning -> ours. The heads follow.
PREFIXES = {
    "Model.text_model.model.": "text_encoder.bert.",
    "Model.audio_model.rnn.": "audio_encoder.lstm.",
    "Model.audio_model.linear_1.": "audio_encoder.linear.",
    "Model.video_model.rnn.": "vision_encoder.lstm.",
    "Model.video_model.linear_1.": "vision_encoder.linear.",
    **{
        f"Model.post_{released}_layer_{layer}.": f"heads.{task}.layer_{layer}."
        for released, task in (("fusion", "fusion"), ("text", "text"), ("audio", "audio"), ("video", "vision"))
        for layer in (1, 2, 3)
    },
}
# BERT's pooler, which nothing reads, and a constant that old transformers saved.
UNUSED = ("text_encoder.bert.pooler.", "text_encoder.bert.embeddings.position_ids")


def load_released_weights(model: nn.Module, weights: dict[str, Tensor], source: Path | str) -> None:
    """Copies weights with the released names into a SelfMM. Raises UserError where names or shapes don't fit."""
    renamed = {}
    for name, tensor in weights.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        ours = PREFIXES[prefix] + name.removeprefix(prefix) if prefix else name
        if not ours.startswith(UNUSED):
            renamed[ours] = tensor
    expected = model.state_dict()
    if not renamed.keys() & expected.keys():
        raise UserError(f"{source}: holds none of Self-MM's weights; expected names like {next(iter(PREFIXES))}...")
    if missing := sorted(expected.keys() - renamed.keys()):
        raise UserError(
            f"{source}: lacks {len(missing)} tensors of the model, {missing[0]} among them; is it the same BERT?"
        )
    if unknown := sorted(renamed.keys() - expected.keys()):
        raise UserError(
            f"{source}: has {len(unknown)} tensors that the model lacks, {first_line(unknown[0])} among them; the same BERT?"
        )
    for name, tensor in renamed.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{source}: {name} is {tuple(tensor.shape)} there and {tuple(expected[name].shape)} by the flags; give the "
                "hyper-parameters and features that it was trained with: --preset, --set KEY=VALUE, --bert, --dataPath"
            )
    model.load_state_dict(renamed)
