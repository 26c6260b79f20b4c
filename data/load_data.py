"""Groups clips into micro-batches and windows, and loads their tensors. One window is one optimizer step."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from config.config_regression import Config
from data.ragged import Ragged, Split
from models.batch import Batch, Frames, PackedText, Window, send
from utils.progress import progress
from utils.ranks import ALONE, Ranks
from utils.signals import ignore_signals, raise_if_stop_requested

Order = Callable[[int], list[list[Tensor]]]  # epoch, from 1 -> windows, each a list of micro-batches of clip indices
CPU = torch.device("cpu")
CPU_STRETCHES = 8  # segments of time in which a CPU runs the LSTMs; more were not faster
EVALUATION_BATCH = 128  # clips in a forward pass without gradients


class ClipDataset(Dataset):
    """One split. Indexed with the micro-batches of a window, it returns the Window."""

    def __init__(self, split: Split, device: torch.device = CPU, max_clips_per_pass: int = 0, ranks: Ranks = ALONE):
        """device: of the windows; a GPU with enough free memory also holds the features. max_clips_per_pass: 0: all."""
        self.split, self.device, self.ranks = split, device, ranks
        self._max_clips_per_pass = max_clips_per_pass
        sequences = (split.text, split.audio, split.vision)
        needed = 2 * sum(part.values.nbytes for part in sequences)
        has_room = device.type == "cuda" and needed < torch.cuda.mem_get_info(device)[0]
        self.home = device if has_room else CPU  # where the features are
        self._text, self._audio, self._vision = (part.to(device) if has_room else part for part in sequences)
        self.text_vectors: Tensor | None = None  # (N, width) at home: by a frozen text encoder, instead of tokens

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, microbatches: list[Tensor]) -> Window:
        clips = torch.cat(microbatches)
        sizes = [len(microbatch) for microbatch in microbatches]
        shares = torch.cat([torch.full((size,), 1 / size, dtype=torch.float64) for size in sizes])
        start, end = self.ranks.share(len(clips))
        own_clips, own_shares = clips[start:end], shares[start:end]
        if start == end:
            # More ranks than clips: run one clip with share 0, so that this rank takes part in the collective operations.
            own_clips, own_shares = clips[:1], torch.zeros(1, dtype=torch.float64)
        step = self._max_clips_per_pass or len(own_clips)
        passes = [self._batch(*part) for part in zip(own_clips.split(step), own_shares.split(step), strict=True)]
        return Window(clips, sizes, passes)

    def _batch(self, clips: Tensor, shares: Tensor) -> Batch:
        # A CPU is fastest without padding, a GPU with padding instead of many small kernels.
        on_cpu = self.device.type == "cpu"
        stretches = CPU_STRETCHES if on_cpu else 1
        if self.text_vectors is not None:
            text = self.text_vectors[send(clips, self.home)]
        else:
            text = PackedText.pack(*_longest_first(self._text, clips), by_length=on_cpu)
        audio, vision = (Frames.pack(*_longest_first(part, clips), stretches) for part in (self._audio, self._vision))
        return Batch(clips, shares, text, audio, vision)


def _longest_first(sequences: Ragged, clips: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The sequences of B clips end to end (F, width), longest first; their lengths (B,); each clip's position in this order (B,)."""
    indices = clips.numpy()
    order = np.argsort(-sequences.lengths[indices], kind="stable")
    longest_first = indices[order]
    return sequences.gather(longest_first), sequences.lengths[longest_first], np.argsort(order)


class Windows:
    """The windows of a split, on the model's device."""

    def __init__(self, clips: ClipDataset, order: Order, num_workers: int = 0, seed: int | None = None):
        """num_workers: unused if the features are in GPU memory. seed: of dropout in training, which shows a bar."""
        self.clips, self.device, self.ranks = clips, clips.device, clips.ranks
        self.labels = clips.split.labels.get("fusion")  # (N,) float32, the human labels; None if there are none
        self._order, self._seed = order, seed
        self._plan: list[list[Tensor]] = []  # the windows that the loader loads next
        workers = num_workers if clips.home == CPU else 0
        settings = {"num_workers": workers, "persistent_workers": workers > 0, "worker_init_fn": ignore_signals}
        settings["pin_memory"] = workers > 0 and clips.device.type == "cuda"
        settings["batch_size"] = None  # each item of the plan is a whole window
        settings["generator"] = torch.Generator()  # otherwise the loader would use the random stream of the dropout
        self._loader = DataLoader(clips, sampler=self._plan, **settings)

    def of_epoch(self, epoch: int, done: int = 0) -> Iterator[Window]:
        """An epoch's windows, from 1, without the first `done`. Between two, a signal raises Stopped on all ranks."""
        self._plan[:] = self._order(epoch)[done:]
        hidden = None if self._seed is not None and self.ranks.rank == 0 else True
        settings = {"total": done + len(self._plan), "initial": done, "unit": "window", "disable": hidden}
        for number, window in enumerate(progress(self._loader, f"epoch {epoch:3d}", **settings), start=done):
            if self._seed is not None:
                self.ranks.seed_dropout(self._seed, epoch, number)
            yield send(window, self.device)
            raise_if_stop_requested(self.ranks.all_reduce_max)


def training_windows(clips: ClipDataset, config: Config, seed: int, num_workers: int = 0) -> Windows:
    """In a random order that depends only on seed and epoch, to resume anywhere. The last window may be incomplete."""

    def order(epoch: int) -> list[list[Tensor]]:
        shuffled = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(clips)))
        windows = shuffled.split(config.batch_size * config.update_epochs)
        return [list(window.split(config.batch_size)) for window in windows]

    return Windows(clips, order, num_workers, seed)


def evaluation_windows(clips: ClipDataset, num_workers: int = 0) -> Windows:
    """Every clip once, sorted by the number of audio frames, to minimise padding."""
    by_length = torch.from_numpy(np.argsort(clips.split.audio.lengths, kind="stable"))
    return Windows(clips, lambda epoch: [[batch] for batch in by_length.split(EVALUATION_BATCH)], num_workers)
