"""`progrpo analyse STUDY`: the paper's analyses of stored rewards and logs. `progrpo sample-rewards` samples."""

import argparse
from collections.abc import Callable
from pathlib import Path

from progrpo.commands.options import HelpFormatter, file_path, require_between, require_other_file
from progrpo.errors import UserError

# Quantity of the study -> key of metrics.jsonl. The reward of the unpruned group, so that arms are comparable; the
# spread of the trajectories that are trained on, which is what the arms differ in.
OVF_STUDY_METRICS = {"reward": "candidates_mean", "reward_std": "reward_std"}


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "analyse",
        help="reward clustering, pruning pilot, static OVF study, gradient signal, discrepancies",
        description="Analyse stored rewards and logs; nothing is sampled or trained here.",
    )
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    _add_clustering(studies)
    _add_pilot(studies)
    _add_ovf_study(studies)
    study = _add_study(studies, "gradient-signal", "signal and noise of gradients by selection rule", run_gradients)
    study.add_argument("--samples", required=True, help=".npz of `progrpo sample-rewards`")
    study.add_argument("--config", required=True, help="config/<tier>.yaml, whose runs get a predicted gain")
    study.add_argument("--analysis", default="gradient_signal", help="name of the analysis in that configuration")
    study = _add_study(studies, "discrepancies", "the page of the paper's internal discrepancies", run_discrepancies)
    study.add_argument("--json", default=None, help="also write the claims as JSON to this file")


def _add_study(studies, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    study = studies.add_parser(name, help=text, description=text[0].upper() + text[1:], formatter_class=HelpFormatter)
    study.add_argument("--out", required=True, type=file_path, help="file to write")
    study.set_defaults(run=run)
    return study


def _add_clustering(studies) -> None:
    study = _add_study(
        studies, "reward-clustering", "how Gaussian the rewards of a prompt are (Fig. 6)", run_clustering
    )
    study.add_argument("--rewards", required=True, help='JSON file {"rewards": [[P x n]]}')
    study.add_argument("--keep", type=int, nargs="+", help="subset sizes of uniform subsampling and OVF; default: half")
    study.add_argument("--simulations", type=int, default=499, help="Gaussian samples behind the p-value")


def _add_pilot(studies) -> None:
    study = _add_study(studies, "pruning-pilot", "which pruning steps (Table 9)", run_pilot)
    study.add_argument(
        "--previews",
        required=True,
        help='JSON file {"previews": [[[P x N x T]]], "terminal": [[P x N]]}, optionally "keep": [N1, K], "candidates"',
    )
    study.add_argument(
        "--counts", type=int, nargs=3, metavar=("N0", "N1", "K"), help="default: as stored, else halve twice"
    )
    study.add_argument("--pairs", nargs="+", metavar="T1,T2", help="default: as stored, else Table 9's fractions of T")
    study.add_argument("--tolerance", type=float, default=0.15, help="relative tolerance of the decision rule")


def _add_ovf_study(studies) -> None:
    study = _add_study(studies, "ovf-study", "static OVF against the full group and a uniform half", run_ovf_study)
    for arm in ("full", "uniform", "ovf"):
        study.add_argument(f"--{arm}", required=True, nargs="+", metavar="DIR", help="run folders, one per seed")
    study.add_argument("--window", type=int, default=10, help="iterations of the trailing mean")


def _analysed(path: str, analyse: Callable[[], dict]) -> dict:
    """The result of `analyse`, whose complaints about the data of `path` become one line for the user."""
    try:
        return analyse()
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def run_clustering(arguments: argparse.Namespace) -> int:
    """Analyse stored rewards of P prompts x n trajectories."""
    from progrpo.analysis import reward_clustering
    from progrpo.files import write_json
    from progrpo.provenance import computed_from
    from progrpo.report.schema import Rewards
    from progrpo.typed import read_checked

    require_between("--simulations", arguments.simulations, 1, 10**6)
    require_other_file(arguments.out, Path(arguments.rewards))
    stored = read_checked(Rewards, arguments.rewards)
    rewards = stored["rewards"]
    keeps = tuple(arguments.keep) if arguments.keep else None
    result = _analysed(arguments.rewards, lambda: reward_clustering.analyse(rewards, keeps, arguments.simulations))
    write_json(arguments.out, {"provenance": computed_from(stored.get("provenance")), **result})
    moments, fit = result["moments"], result["goodness_of_fit"]["kolmogorov_smirnov"]
    print(
        f"{result['prompts']} prompts x {result['group']}: skewness {moments['skewness']:+.3f}, excess kurtosis"
        f" {moments['excess_kurtosis']:+.3f} (Gaussian groups {moments['excess_kurtosis_of_gaussian_groups']:+.3f}),"
        f" KS {fit['statistic']:.4f} (p {fit['p_value']:.3f})"
    )
    return 0


def _pairs(texts: list[str] | None) -> tuple[tuple[int, int], ...] | None:
    if not texts:
        return None
    try:
        return tuple((int(first), int(second)) for first, second in (text.split(",") for text in texts))
    except ValueError:
        raise UserError(f"--pairs {' '.join(texts)}: write each pair as two integers, e.g. 5,7") from None


def run_pilot(arguments: argparse.Namespace) -> int:
    """Analyse stored preview and terminal rewards of an unpruned pool."""
    from progrpo.analysis import pruning_pilot
    from progrpo.files import write_json
    from progrpo.provenance import computed_from
    from progrpo.report.schema import Previews
    from progrpo.typed import read_checked

    require_between("--tolerance", arguments.tolerance, 0, 1)
    require_other_file(arguments.out, Path(arguments.previews))
    stored = read_checked(Previews, arguments.previews)
    previews, terminal = stored["previews"], stored["terminal"]
    pairs = _pairs(arguments.pairs) or stored.get("candidates")
    counts = arguments.counts
    if not counts and stored.get("keep"):
        counts = (len(terminal[0]), *stored["keep"])
    result = _analysed(
        arguments.previews,
        lambda: pruning_pilot.analyse(previews, terminal, counts, pairs, arguments.tolerance),
    )
    write_json(arguments.out, {"provenance": computed_from(stored.get("provenance")), **result})
    for row in result["candidates"]:
        print(
            f"{tuple(row['pruning_steps'])}: Spearman {row['spearman'][0]:.3f} / {row['spearman'][1]:.3f}, variance"
            f" {row['variance']:.3g}, CostRatio {row['cost_ratio']:.3f}, {row['decision']}"
        )
    return 0


def _metrics(folders: list[str]) -> dict[str, list[list[float]]]:
    from progrpo.report.summary import read_metrics

    runs: dict[str, list[list[float]]] = {quantity: [] for quantity in OVF_STUDY_METRICS}
    for folder in folders:
        path = Path(folder) / "metrics.jsonl"
        lines = read_metrics(path)
        if not lines:
            raise UserError(f"{path}: empty; train the run first")
        for quantity, key in OVF_STUDY_METRICS.items():
            values = [value for line in lines if (value := line.get(key)) is not None]
            if len(values) < len(lines):
                number = next(k for k, line in enumerate(lines, 1) if line.get(key) is None)
                raise UserError(f"{path}: entry {number}: no {key!r}; was it written by `progrpo train`?")
            runs[quantity].append(values)
    return runs


def _paired(arms: dict[str, list[str]]) -> dict[str, list[str]]:
    """The folders of each arm by ascending seed, as their names `<run>-seed<k>` say; as given where some have other names.

    UserError where the arms have other seeds: their runs are compared in pairs.
    """
    from progrpo.names import parse_seed_folder

    places = {arm: [parse_seed_folder(Path(folder).name) for folder in folders] for arm, folders in arms.items()}
    seeds = {arm: [place[1] for place in found if place] for arm, found in places.items()}
    if any(len(seeds[arm]) < len(folders) for arm, folders in arms.items()):
        return arms
    if len({tuple(sorted(found)) for found in seeds.values()}) > 1 or any(len({*s}) < len(s) for s in seeds.values()):
        said = "; ".join(f"{arm} {', '.join(map(str, sorted(found)))}" for arm, found in seeds.items())
        raise UserError(f"the arms need the same seeds, each once: {said}")
    return {
        arm: [folder for _, folder in sorted(zip(seeds[arm], folders, strict=True))] for arm, folders in arms.items()
    }


def _trained(folder: str) -> dict[str, object]:
    """Hash of the configuration and seed of the training in a folder, as far as its weights are there."""
    from progrpo.files import read_object

    path = Path(folder, "final", "provenance.json")
    made = read_object(path) if path.is_file() else {}
    return {key: made.get(key) for key in ("config", "seed")}


def run_ovf_study(arguments: argparse.Namespace) -> int:
    """Compare the three arms' training logs."""
    from progrpo.analysis import ovf_study
    from progrpo.files import write_json
    from progrpo.provenance import computed_from

    require_between("--window", arguments.window, 1, 10**6)
    folders = _paired({arm: getattr(arguments, arm) for arm in ovf_study.ARMS})
    arms = {arm: _metrics(paths) for arm, paths in folders.items()}
    result = _analysed(", ".join(sum(folders.values(), [])), lambda: ovf_study.analyse(arms, arguments.window))
    made_from = {arm: [_trained(folder) for folder in paths] for arm, paths in folders.items()}
    write_json(arguments.out, {"provenance": computed_from(made_from), **result})
    for arm, end in result["end"].items():
        print(f"{arm}: " + ", ".join(f"{quantity} {interval['mean']:.4g}" for quantity, interval in end.items()))
    return 0


def run_gradients(arguments: argparse.Namespace) -> int:
    """Compare the rules on stored pools, and predict the tier's arms."""
    from progrpo.analysis.gradient_signal import Arm, Pools, analyse
    from progrpo.config import load_config
    from progrpo.files import parse_json, read_arrays, write_json
    from progrpo.provenance import computed_from

    require_other_file(arguments.out, Path(arguments.samples))
    config = load_config(arguments.config)
    analysis = config.get_analysis(arguments.analysis)
    if analysis.gradients_of is None or analysis.keep is None:  # the first needs the second
        raise UserError(f"--analysis {arguments.analysis}: studies no gradients; name one with `gradients_of`")
    names = ("rewards", "previews", "projections", "grams")
    stored = read_arrays(arguments.samples, (*names, "provenance"))
    if lacking := [name for name in names if name not in stored]:
        raise UserError(f"{arguments.samples}: no pools of gradients: holds no {', '.join(lacking)}")
    stages = tuple(zip(analysis.candidates[0], analysis.keep, strict=True))
    arms = {
        name: Arm(
            run.group.size,
            tuple((stage.step, stage.keep) for stage in run.group.pruning),
            run.group.rule,
            run.iterations,
        )
        for name, run in config.runs.items()
        if run.model == analysis.model
    }
    study = _analysed(
        arguments.samples,
        lambda: analyse(Pools(*(stored[name] for name in names)), stages, arms, analysis.gradients_of),
    )
    text = str(stored.get("provenance", "null"))
    made_from = _analysed(arguments.samples, lambda: {"samples": parse_json(text)})["samples"]
    write_json(arguments.out, {"provenance": computed_from(made_from), **study})
    for row in study["rules"]:
        print(
            f"{row['rule']}: K {row['keep']}, variance {row['variance']:.4g}, predicted {row['predicted']:.2f} of uniform"
        )
    return 0


def run_discrepancies(arguments: argparse.Namespace) -> int:
    """Compute every claim and write the page."""
    from progrpo.cost import atomic_costs
    from progrpo.files import write_json, write_text
    from progrpo.report.agreements import agreements
    from progrpo.report.discrepancies import discrepancies
    from progrpo.report.discrepancies_page import render

    found, agreed = discrepancies(atomic_costs.measure()), agreements()
    write_text(arguments.out, render(found, agreed))
    if arguments.json:
        write_json(arguments.json, {"discrepancies": found, "agreements": agreed})
    print(f"{len(found)} discrepancies and {len(agreed)} agreements in {arguments.out}")
    return 0
