"""`progrpo plan`: what a tier costs before its first job is started."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, require_between


def add_parser(commands) -> None:
    """Add `plan` to the command line."""
    parser = commands.add_parser(
        "plan",
        help="GPU-hours, memory, disk, downloads and jobs of a tier, estimated before it runs",
        description="Estimate, by arithmetic on counted operations and parameters, what a tier of official models costs;"
        " refuse, with the setting that would help, what cannot fit on a GPU. Nothing is measured, nothing runs.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, help="the tier's YAML")
    parser.add_argument(
        "--utilisation", type=float, default=0.35, help="share of --gpu-tflops that is reached: assumed"
    )
    parser.add_argument(
        "--gpu-tflops", type=float, default=495, help="dense TFLOP/s of a GPU; H100: 495 in TF32, 989 in bf16"
    )
    parser.add_argument("--gpu-memory", type=float, default=80, help="GB of a GPU")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Compute, refuse what does not fit, print."""
    require_between("--utilisation", arguments.utilisation, 0.01, 1)
    require_between("--gpu-tflops", arguments.gpu_tflops, 0.1, 1e6)
    require_between("--gpu-memory", arguments.gpu_memory, 1, 1e5)
    from progrpo.config import load_config
    from progrpo.files import to_json
    from progrpo.report.claims_file import CLAIMS, load_claims
    from progrpo.workflow.estimate import report, require_fit, table
    from progrpo.workflow.site import load_site

    config = load_config(arguments.config)
    require_fit(config, arguments.gpu_memory)
    judged = CLAIMS.is_file() and bool(load_claims(CLAIMS).of_tier(config.tier))
    made = report(config, arguments.gpu_tflops, arguments.utilisation, judged, load_site())
    print(to_json(made, "the plan", indent=1) if arguments.json else "\n".join(table(made)))
