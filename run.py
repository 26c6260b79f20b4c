"""Trains and tests a model over several seeds: python run.py --modelName self_mm --datasetName mosi"""

import gc
import os
import shlex
import sys

from config.command_line import RunOptions, hide_password, parse_arguments
from config.config_regression import TASK_SETS
from trains.runs.model_names import check_model
from utils.errors import UserError, complain, run_program
from utils.files import make_folder
from utils.log import make_log


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 after a bug; 2 after a UserError; 130 or 143 after a signal."""
    argv = hide_password(sys.argv[1:] if argv is None else argv)
    again = argv if {"--resume", "--test_only", "--is_tune"} & set(argv) else [*argv, "--resume"]
    program = "torchrun ... run.py" if "TORCHELASTIC_RUN_ID" in os.environ else "python run.py"
    return run_program(lambda: run(argv), f"to continue: {program} {shlex.join(again)}", broken_pipe_status=1)


def run(argv: list[str]) -> None:
    """Reads the flags and sets up this process, then trains, tunes or tests."""
    try:
        options = parse_arguments(argv)
        check_model(options.model_name)
        if "RANK" not in os.environ:  # else each rank reports what its machine lacks, when it opens it
            options.check_paths()
    except UserError:
        if os.environ.get("RANK", "0") != "0":  # under torchrun, every rank sees the error and rank 0 reports it
            raise SystemExit(2) from None
        raise

    # Imported here, so that --help and a misspelt flag do not wait for torch and transformers.
    gc.disable()  # looking for garbage among the objects that they make takes a seventh of the start
    import torch

    import trains.runs.open  # noqa: F401 (imports nearly all that the functions below do)
    from models.cpu_kernels import set_up_cpu
    from trains.runs.jobs import stop_with_parent
    from utils.device import make_deterministic, pick_device
    from utils.ranks import join_ranks

    gc.freeze()  # nor look through them later
    gc.enable()
    if options.as_job:
        stop_with_parent()
    set_up_cpu()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.deterministic:
        make_deterministic()
    ranks = join_ranks()
    with ranks.one_rank_reports():
        gpu_ids = ranks.choose_gpus(options.gpu_ids)
        device = pick_device([-1] if options.jobs > 1 else gpu_ids)  # with --jobs, only the jobs compute
        if options.test_only is not None:
            test_checkpoint(options, device)
        elif options.is_tune:
            tune(options, device)
        else:
            train_and_test(options, device, ranks)
        ranks.close()


def train_and_test(options: RunOptions, device, ranks) -> None:
    """For each seed, trains a model, tests its best checkpoint and adds a CSV row; then writes the summary and a report."""
    from data.schema import SPLITS
    from trains.runs.figures.__main__ import draw_run
    from trains.runs.keeper import Keeper, train_seed
    from trains.runs.open import open_experiment
    from trains.runs.record import record_folder
    from trains.runs.report import ablation_table
    from trains.runs.results import write_rows, write_summary

    splits = SPLITS if ranks.rank == 0 else ("train", "valid")  # only rank 0 tests
    opened = ranks.rank_zero_first(lambda: open_experiment(options, device, splits, ranks))
    experiments = [opened]
    if options.ablate:
        experiments = [opened.with_config(options.config(tasks=tasks)) for tasks in TASK_SETS]
    ranks.check_equal(
        config=opened.provenance.config_hash, seeds=options.seeds, device=device.type, ablate=options.ablate
    )
    trainings = [(experiment, seed) for experiment in experiments for seed in options.seeds]
    if ranks.rank > 0:
        for experiment, seed in trainings:
            train_seed(experiment, seed, keeper=None)
        return
    dataset = opened.dataset.name
    results, models = make_folder(options.res_save_dir / "normals"), make_folder(options.model_save_dir)
    log = make_log(options.log_dir / f"{options.model_name}-{dataset}.log")
    seeds_csv, summary_csv = results / f"{dataset}-regression-seeds.csv", results / f"{dataset}-regression.csv"
    if not options.as_job:
        opened.describe(log, options.jobs)
    keepers = [Keeper(*training, options, seeds_csv, log) for training in trainings]  # raises if unfinished
    if options.jobs > 1:
        jobs = {k.name: f"--ablate False --tasks {k.tasks} --seeds {k.seed}".split() for k in keepers}
        if failures := run_jobs(options, jobs):
            raise UserError(f"{'; '.join(failures)}; --resume continues the unfinished seeds")
    tests = {experiment.config.tasks: [] for experiment in experiments}
    for keeper, training in zip(keepers, trainings, strict=True):
        test = train_seed(*training, keeper) if options.jobs == 1 else keeper.finished_test()
        tests[keeper.tasks].append(test)
        write_summary(seeds_csv, summary_csv, opened.metric_names)
    if options.as_job:
        return
    if options.ablate:
        table = ablation_table(tests, {experiment.config.tasks: experiment.published for experiment in experiments})
        write_rows(table, path := results / f"{dataset}-regression-ablation{opened.provenance.suffix}.csv")
        log.info(f"{path}, seeds {' '.join(map(str, options.seeds))}\n{table.to_string(index=False)}")
    else:
        log.info(opened.report(tests[opened.config.tasks]))
    log.info(f"checkpoints: {models}; one row per seed: {seeds_csv}; summary: {summary_csv}")
    for experiment in () if options.no_figures else experiments:
        try:
            drawn = draw_run(record_folder(experiment, options.res_save_dir))
            log.info(drawn.splitlines()[-1] if options.ablate else drawn)
        except UserError as error:  # the results are safe
            log.info(f"no report: {error}")


def tune(options: RunOptions, device) -> None:
    """Runs a sweep, or a worker of one, until --tune_times trials are finished; then writes its table and plots."""
    from trains.runs.open import open_experiment
    from trains.sweep.report import SweepReport
    from trains.sweep.study import Sweep

    sweep = Sweep(open_experiment(options, device, ("train", "valid")), options)
    log = make_log(options.log_dir / f"{options.model_name}-{sweep.experiment.dataset.name}-tune.log")
    report = SweepReport(sweep, log)
    if not options.as_job:
        sweep.experiment.describe(log, options.jobs)
        log.info(sweep.describe())
    if options.jobs > 1:
        failures = run_jobs(options, {f"worker {number}": [] for number in range(1, options.jobs + 1)})
        if len(failures) == options.jobs:
            raise UserError(failures[0])
        for failure in failures:
            log.info(f"{failure}; the other workers continued")
    else:
        sweep.work(log, after_each=report.write)
    if not options.as_job:
        report.close()


def test_checkpoint(options: RunOptions, device) -> None:
    """Tests the checkpoint or released .pth that --test_only names, and prints a table. Writes no CSV row."""
    from models.hub import find_checkpoint
    from models.weights_file import load_released_weights, read_weights
    from trains.runs.open import open_checkpoint, open_experiment

    if (path := find_checkpoint(options.test_only, "--test_only")).is_file():
        experiment = open_experiment(options, device)
        model = experiment.new_model()
        load_released_weights(model, read_weights(path), path)
    else:
        free = {"max_epochs", "precision", "max_clips_per_pass"}  # do not belong to the trained network
        if options.bert or options.preset or options.hyper_parameters.keys() - free:
            advice = f"leave out --preset, --params, --tasks, --unimodal_labels and --bert; --set accepts {', '.join(sorted(free))}"
            raise UserError(f"--test_only {path} already has a model; {advice}")
        experiment, model = open_checkpoint(path, options, device)
    for note in experiment.notes():
        complain(note)
    print(f"{options.test_only} on {experiment.dataset.name}")
    print(experiment.report([experiment.test(model)[0]]))


def run_jobs(options: RunOptions, jobs: dict[str, list[str]]) -> list[str]:
    """Repeats this command line in --jobs processes. Returns their failures. jobs: name -> its additional flags."""
    import torch

    from trains.runs.jobs import run_side_by_side
    from utils.device import known_gpus

    threads = options.threads or max(1, torch.get_num_threads() // options.jobs)
    shared = [*options.argv, "--jobs", "1", "--threads", str(threads), "--as_job"]
    commands = {name: [*shared, *flags] for name, flags in jobs.items()}
    return run_side_by_side(commands, options.jobs, known_gpus(options.gpu_ids))


if __name__ == "__main__":
    sys.exit(main())
