"""Trained models on the Hugging Face hub: how they are saved and loaded."""

import contextlib
import logging
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import transformers
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file

WEIGHTS = "model.safetensors"
METADATA = "trained_on"  # the key of config.json for dataset, seed, epoch, versions


class HubModel(PyTorchModelHubMixin, library_name="self-mm", paper_url="https://arxiv.org/abs/2102.04830"):
    """Loaded by `from_pretrained` and saved by `save_pretrained`: config.json and model.safetensors."""

    @classmethod
    def _from_pretrained(cls, **settings: object) -> "HubModel":
        # Always strict: a file without some tensors is an error, not random weights. Old hub libraries leave dropout on.
        return super()._from_pretrained(**settings | {"strict": True}).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        # cuDNN keeps an LSTM's weights in one block of memory, which the mixin refuses to save. Copies are separate.
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, save_directory / WEIGHTS)


def checksum(folder: Path) -> int:
    """Of a checkpoint's weights."""
    return zlib.crc32((folder / WEIGHTS).read_bytes())


@contextlib.contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Silences the reports, warnings and retries of transformers and the hub. bars: shows their progress bars."""
    set_bars = transformers.logging.enable_progress_bar if bars else transformers.logging.disable_progress_bar
    set_bars()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
