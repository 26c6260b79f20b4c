"""What --tensorboard shows of a seed, in a folder of --log_dir: tensorboard --logdir logs"""

import numpy as np

from config.command_line import RunOptions
from utils.files import remove


class Board:
    """Scalars and label histograms of each epoch, and the hyper-parameters beside the test's scores."""

    def __init__(self, options: RunOptions, name: str, epochs: int):
        """name: of the checkpoint. epochs: those that a resumed training keeps; later ones are written again."""
        from torch.utils.tensorboard import SummaryWriter  # only --tensorboard needs it installed

        if not epochs:
            remove(options.log_dir / name)
        self._writer = SummaryWriter(str(options.log_dir / name), purge_step=epochs + 1)

    def add_epoch(self, row: dict[str, float], labels: dict[str, np.ndarray]) -> None:
        """row: of history.csv, the epoch first; a column part_name becomes part/name. labels: task -> (N,)."""
        for name in [*row][1:]:
            self._writer.add_scalar(name.replace("_", "/", 1), row[name], row["epoch"])
        for task, values in labels.items():
            self._writer.add_histogram(f"labels/{task}", values, row["epoch"])
        self._writer.flush()

    def close(self, hyper_parameters: dict[str, object], test: dict[str, float]) -> None:
        finite = {f"test/{name}": value for name, value in test.items() if np.isfinite(value)}
        self._writer.add_hparams(hyper_parameters, finite, run_name=".")
        self._writer.close()
