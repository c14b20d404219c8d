"""`progrpo flops`: the cost model of Tables 9, 10 and 11, published and measured."""

import argparse
import textwrap

from progrpo.commands.options import HelpFormatter


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "flops",
        help="network calls and TFLOP per epoch under every accounting",
        description="Compute the totals of Tables 10 and 11 and the CostRatio of Table 9, and count the atomic costs of"
        " the official architectures without weights (a few seconds, no accelerator).",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    parser.add_argument("--out", default=None, help="also write the JSON to this file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, compute, print."""
    from progrpo.cost import atomic_costs, flops
    from progrpo.files import to_json, write_json
    from progrpo.provenance import computed_from

    report = {"provenance": computed_from(), **flops.report(atomic_costs.measure())}
    if arguments.out:
        write_json(arguments.out, report)
    as_json = to_json(report, "the report", indent=1, sort_keys=True)
    print(as_json if arguments.json else "\n".join(table(report)))
    return 0


def table(report: dict) -> list[str]:
    """The readable page of `flops.report`, line by line."""
    return [*_atomic(report["atomic"]), "", *_calls(report), "", *_totals(report), "", *_cost_ratios(report)]


def _atomic(atomic: dict) -> list[str]:
    lines = [
        "Atomic costs, TFLOP per call at 512 x 512",
        f"{'':26}{'printed':>9}{'without attention':>19}{'with':>8}",
    ]
    names = {"denoiser": "guided denoiser", "decoder": "decoder", "reward": "reward", "taesd": "TAESD decoder"}
    for backbone, measured in atomic["measured"].items():
        for key, name in names.items():
            printed = atomic["printed"][backbone].get(key)
            shown = f"{printed:9.2f}" if printed is not None else f"{'--':>9}"
            without = measured[f"{key}_without_attention"]
            lines.append(f"{backbone + ' ' + name:26}{shown}{without:19.3f}{measured[key]:8.3f}")
    return lines


def _calls(report: dict) -> list[str]:
    lines = [
        "Denoiser calls per prompt (survivors reuse the preview's call / one extra call for all)",
        f"{'':26}{'sampling':>15}{'update':>8}{'total':>14}{'decodes':>9}",
    ]
    for name, modes in report["calls_per_prompt"].items():
        reuse, every = modes["reuse"], modes["recompute"]
        sampling, total = (f"{reuse[key]} / {every[key]}" for key in ("denoiser", "total"))
        lines.append(f"{name:26}{sampling:>15}{reuse['update']:8d}{total:>14}{reuse['decoder']:9d}")
    return lines


def _totals(report: dict) -> list[str]:
    lines = ["TFLOP per epoch"]
    for name, accounting in report["accountings"].items():
        lines += [
            *textwrap.wrap(f"{name}: {accounting['explanation']}", width=100),
            f"{'':26}{'TFLOP':>12}{'printed':>12}{'off':>9}{'ratio':>8}{'1 + reduction':>15}{'printed':>9}",
        ]
        for run_name, row in accounting["runs"].items():
            published = report["published"][run_name]
            lines.append(
                f"{run_name:26}{row['tflop']['total']:12.2f}{published['tflop']:12.2f}"
                f"{100 * row['difference_from_published']:+8.2f}%{row['speedup']:8.3f}{row['one_plus_reduction']:15.3f}"
                f"{published['label']:9.2f}"
            )
        lines.append("")
    return lines[:-1]


def _cost_ratios(report: dict) -> list[str]:
    lines = ["CostRatio of Table 9 (48 -> 24 -> 12, T = 10)"]
    for row in report["cost_ratio"]:
        pair = tuple(row["pruning_steps"])
        lines.append(f"{str(pair):26}{row['reproduced']:9.3f}   paper {row['paper']:.3f}")
    return lines
