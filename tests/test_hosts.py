"""Training over two hosts gives one process's results, ends when a host vanishes, and names the mend of a wrong network.

The hosts are network namespaces of this machine.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from ranks import INTERFACE, fork_ranks, start_torchrun_on, two_hosts, vanish
from run_files import SEEDS_CSV
from safetensors.torch import load_file

import run
from models.self_mm import SelfMM
from utils import ranks
from utils.ranks import join_ranks

SILENCE = 3  # seconds
NO_DROPOUT = [f"post_{name}_dropout=0" for name in ("fusion", "text", "audio", "video")]


@pytest.fixture
def hosts(monkeypatch) -> Iterator[list[str]]:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", INTERFACE)
    monkeypatch.setattr(ranks, "SILENCE", SILENCE)
    with two_hosts() as hosts:
        yield hosts


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_torchrun_over_two_hosts_trains_what_one_process_trains(hosts, workplace, tmp_path, monkeypatch):
    tiny.write_bert(workplace.bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    flags = ["--datasetName", "mosi", "--max_epochs", "3", "--threads", "1", "--set", "precision=float64", *NO_DROPOUT]
    flags = workplace.command(*flags, "batch_size=4", "update_epochs=2")
    folders = [tmp_path / name for name in ("first", "second", "alone")]
    for folder in folders:
        folder.mkdir()

    processes = start_torchrun_on(hosts, *flags, folders=folders[:2])
    monkeypatch.chdir(tmp_path / "alone")
    assert run.main(flags) == 0
    for process in processes:
        output = process.communicate(timeout=100)
        assert process.returncode == 0, output

    (alone,) = Path("results/models").glob("*/model.safetensors")
    over_two_hosts = load_file(tmp_path / "first" / alone)
    for name, tensor in load_file(alone).items():
        torch.testing.assert_close(
            over_two_hosts[name], tensor, atol=1e-9, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    row = pd.read_csv(tmp_path / "first" / SEEDS_CSV).iloc[0]
    assert row["ranks"] == 2 and row["epochs"] == 3
    assert not list((tmp_path / "second").iterdir()), "only the first host writes"


@pytest.mark.parametrize(
    ("victim", "pause"),
    [(0, 0), (1, 1)],
    ids=["the first, before the other sends", "the second, while the other waits"],
)
def test_a_host_that_vanishes_ends_the_run_with_one_line_and_one_process_resumes(
    hosts, workplace, capfd, victim, pause
):
    flags = ["--max_epochs", "6", "--threads", "1", "--save_every", "0", "--set", "early_stop=9999"]

    def rank(number: int) -> int:
        original, calls = SelfMM.forward, []

        def counted(*arguments):
            calls.append(1)
            if number == victim and len(calls) == 10:  # an epoch has 4
                time.sleep(pause)
                vanish()
            return original(*arguments)

        SelfMM.forward = counted
        return workplace.run(*flags)

    statuses = fork_ranks(2, rank, hosts)
    assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] == 2
    (line,) = errors(capfd.readouterr().err)
    assert "another rank of this run is gone (" in line and "; --resume continues from the last saved state" in line
    assert workplace.run(*flags, "--resume") == 0
    assert pd.read_csv(SEEDS_CSV)["epochs"].tolist() == [6]
    assert "resumes after" in Path("logs/self_mm-mosi.log").read_text()


def test_a_stopped_rank_is_not_lost_while_its_host_answers(hosts, monkeypatch):
    monkeypatch.setattr(ranks, "JOIN_TIMEOUT", timedelta(seconds=2))
    assert SILENCE > 2

    def rank(number: int) -> None:
        joined = join_ranks()
        if number == 1:
            subprocess.Popen(["sh", "-c", f"sleep {SILENCE + 1}; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
        numbers = torch.full((10_000_000,), float(number))  # more than fits into the buffers of a connection
        joined.broadcast_tensors([numbers])
        assert not numbers.any() and joined.all_reduce_max(number) == 1

    assert fork_ranks(2, rank, hosts) == [0, 0]


def test_hosts_that_give_each_other_their_loopback_address_get_the_mend_in_one_line(hosts, monkeypatch, capfd):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")  # a host's name leads to its loopback, as on Debian
    monkeypatch.setattr(ranks, "JOIN_TIMEOUT", timedelta(seconds=0.5))

    assert fork_ranks(2, lambda number: run.main(["--datasetName", "demo", "--gpu_ids", "-1"]), hosts) == [2, 2]
    lines = errors(capfd.readouterr().err)
    assert len(lines) == 2, "one on each host"
    assert all("set GLOO_SOCKET_IFNAME to the network interface, on each machine" in line for line in lines)
