"""sLSTM (section 3.2 of the paper): one sequence of frames -> one vector."""

import torch
from torch import Tensor, nn

from utils.batch import Frames


class LSTMEncoder(nn.Module):
    """An LSTM's last hidden state, through dropout and a linear layer (which the released code adds)."""

    def __init__(self, width: int, hidden_size: int, out_size: int, layers: int, dropout: float):
        super().__init__()
        between_layers = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(width, hidden_size, num_layers=layers, dropout=between_layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, out_size)

    def forward(self, frames: Frames) -> Tensor:
        """B sequences -> (B, out_size).

        The padded frames are run too and their states dropped. That is exact, since an LSTM never looks ahead, and on a
        CPU ten times as fast as `pack_padded_sequence`, whose backward fills a whole gradient at every time step.
        """
        states, _ = self.lstm(frames.values)  # (B, L, hidden_size)
        last_real = frames.lengths - 1
        clips = torch.arange(len(last_real), device=last_real.device)
        return self.linear(self.dropout(states[clips, last_real]))
