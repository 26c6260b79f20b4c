"""Trains and tests a model over several seeds: python run.py --modelName self_mm --datasetName mosi"""

import os
import shlex
import sys
from pathlib import Path

from config.command_line import parse_arguments
from config.run_options import RunOptions
from utils.errors import UserError, run_program
from utils.files import make_folder
from utils.log import make_log

# What a checkpoint may be tested with other than it was trained with: how it is computed.
MAY_DIFFER = {"max_epochs", "precision", "max_clips_per_pass"}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 for a bug; 2 for what the user can mend, told in one line; 130 or 143 after a signal."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        try:
            options = parse_arguments(argv)
        except UserError:
            if os.environ.get("RANK", "0") != "0":  # all of torchrun's processes find the same wrong flag
                raise SystemExit(2) from None
            raise
        run(options)

    again = argv if {"--resume", "--test_only", "--is_tune"} & set(argv) else [*argv, "--resume"]
    program = "torchrun ... run.py" if "TORCHELASTIC_RUN_ID" in os.environ else "python run.py"
    return run_program(work, if_stopped=f"to go on: {program} {shlex.join(again)}", broken_pipe_status=1)


def run(options: RunOptions) -> None:
    # Imported here, so that --help and a misspelt flag don't wait for torch and transformers.
    import torch

    from trains.runs.jobs import stop_with_parent
    from utils.device import keep_freed_memory, make_deterministic, pick_device
    from utils.ranks import join_ranks

    if options.as_job:
        stop_with_parent()
    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.deterministic:
        make_deterministic()
    ranks = join_ranks()
    with ranks.one_rank_reports():
        if ranks.size > 1 and (options.test_only or options.is_tune or options.jobs > 1):
            raise UserError(
                "torchrun trains one model on several processes: leave out --test_only, --is_tune and --jobs"
            )
        mine = ranks.choose_gpus(options.gpu_ids)
        device = pick_device([-1] if options.jobs > 1 else mine)  # with --jobs, this process only waits for others
        if options.test_only:
            test_checkpoint(options, device)
        elif options.is_tune:
            tune(options, device)
        else:
            train_and_test(options, device, ranks)
        ranks.close()


def train_and_test(options: RunOptions, device, ranks) -> None:
    """One model for each seed: train it, test its best checkpoint, write its row; then the summary and a table."""
    from data.schema import SPLITS
    from trains.runs.jobs import run_seeds
    from trains.runs.keeper import Keeper, NoKeeper
    from trains.runs.open import open_experiment
    from trains.runs.results import write_summary
    from trains.runs.seed_run import train_seed

    experiment = ranks.rank_zero_first(
        lambda: open_experiment(
            options.model_name,
            options.dataset,
            options.config(),
            device,
            **opened_files(options),
            ranks=ranks,
            splits=SPLITS if ranks.is_rank_zero else ("train", "valid"),  # the first tests alone
            tuned=options.tuned,
        )
    )
    ranks.check_equal(config=experiment.provenance.config_hash, seeds=options.seeds, device=device.type)
    if not ranks.is_rank_zero:
        for seed in options.seeds:
            train_seed(experiment, seed, NoKeeper(ranks.rank))
        return
    dataset = experiment.dataset.name
    results, models = make_folder(options.res_save_dir / "normals"), make_folder(options.model_save_dir)
    log = make_log(make_folder(Path("logs")) / f"{options.model_name}-{dataset}.log")
    seeds_csv, summary_csv = results / f"{dataset}-regression-seeds.csv", results / f"{dataset}-regression.csv"
    if not options.as_job:
        log.info(experiment.describe())
    if options.jobs > 1:
        run_seeds(options.seeds, options.argv, options.jobs, options.gpu_ids, options.threads)
    tests = []
    for seed in options.seeds:
        keeper = Keeper(experiment, seed, models, seeds_csv, log, options.save_every, options.resume)
        tests.append(train_seed(experiment, seed, keeper) if options.jobs == 1 else keeper.finished_test())
        write_summary(seeds_csv, summary_csv, experiment.metric_names)
    if not options.as_job:
        log.info(experiment.report(f"test, {len(tests)} seed{'s' * (len(tests) > 1)}", tests))
        log.info(f"checkpoints in {models}, a row for each seed in {seeds_csv}, summary in {summary_csv}")


def opened_files(options: RunOptions) -> dict[str, object]:
    """The flags that say what to open, as the functions of trains/runs/open.py take them."""
    return {
        "features": options.data_path,
        "bert": options.bert,
        "aligned": options.aligned,
        "cache_dir": options.cache_dir,
        "num_workers": options.num_workers,
    }


def make_sweep(options: RunOptions, device):
    """The trains.sweep.study.Sweep that the flags describe."""
    from trains.runs.open import open_experiment
    from trains.sweep.study import Sweep

    experiment = open_experiment(
        options.model_name,
        options.dataset,
        options.config(),
        device,
        **opened_files(options),
        splits=("train", "valid"),
    )
    return Sweep(
        experiment,
        configure=lambda params: options.config(**params),
        fixed=options.hyper_parameters,
        seed=options.seeds[0],
        times=options.tune_times,
        url=options.storage,
        heartbeat=options.heartbeat,
        results=options.res_save_dir,
        sampler=options.sampler,
        pruner=options.pruner,
    )


def tune(options: RunOptions, device) -> None:
    """A sweep, or this process's part of one: trials until --tune_times are finished; then a table and pictures."""
    from trains.runs.jobs import run_workers
    from trains.sweep.report import SweepReport

    sweep = make_sweep(options, device)
    make_folder(options.res_save_dir / "tunes")
    log = make_log(make_folder(Path("logs")) / f"{options.model_name}-{sweep.experiment.dataset.name}-tune.log")
    report = SweepReport(sweep, options.res_save_dir, log)
    if not options.as_job:
        log.info(sweep.describe())
    if options.jobs > 1:
        run_workers(options.argv, options.jobs, options.gpu_ids, options.threads, log)
    else:
        sweep.work(log, after_each=report.write)
    if not options.as_job:
        report.close()


def test_checkpoint(options: RunOptions, device) -> None:
    """Tests what --test_only names, a checkpoint folder or a .pth of the released code, and prints a table; writes no row."""
    from trains.runs.open import open_checkpoint, open_experiment, open_released_checkpoint
    from utils.files import current_folder

    path = current_folder(options.test_only)
    if not path.exists():
        raise UserError(f"--test_only {path}: nothing there; name a checkpoint folder, or a .pth of the released code")
    if path.is_file():
        experiment = open_experiment(
            options.model_name, options.dataset, options.config(), device, **opened_files(options)
        )
        model = open_released_checkpoint(path, experiment)
    elif options.preset or options.params or options.bert or options.hyper_parameters.keys() - MAY_DIFFER:
        raise UserError(
            f"--test_only {path}: holds its own model; leave out --preset, --params, --tasks, --bert, and --set of anything but "
            f"{', '.join(sorted(MAY_DIFFER))}"
        )
    else:
        experiment, model = open_checkpoint(
            path,
            options.model_name,
            options.dataset_name,
            device,
            overrides=options.hyper_parameters,
            features=options.data_path,
            aligned=options.aligned,
            cache_dir=options.cache_dir,
            num_workers=options.num_workers,
        )
    print(experiment.report(f"{options.test_only} on {experiment.dataset.name}, test", [experiment.test(model)]))


if __name__ == "__main__":
    sys.exit(main())
