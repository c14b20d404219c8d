"""`progrpo doctor`: what is installed and present on this machine, and which tier can be run now."""

import argparse
from typing import Any

from progrpo.commands.options import HelpFormatter

SHOWN = ("torch", "torchvision", "diffusers", "transformers", "peft", "open_clip_torch", "snakemake", "dvc")


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "doctor",
        help="what is installed and present here, and which tier can be run now",
        description="Look at packages, device, memory, models, downloads, disk and tools, and say of each tier whether it can be"
        " run now and why not. Changes nothing, loads no model. Exit status 0 when tier smoke can run, else 1.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--hashes", action="store_true", help="also compare the content of models and downloads")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and print; 0 when tier smoke can run."""
    from progrpo.files import to_json
    from progrpo.workflow.readiness import examine

    found = examine(arguments.hashes)
    print(to_json(found, "the report", indent=1) if arguments.json else "\n".join(page(found)))
    return 0 if found["tiers"].get("smoke", {}).get("can_run") else 1


def page(found: dict[str, Any]) -> list[str]:
    """The readable page of `readiness.examine`, line by line."""
    facts = {
        "progrpo": f"{found['version'] or 'not installed'} on Python {found['python']}",
        "packages": _packages(found["packages"]),
        "device": _device(found["device"]),
        "miniature": _miniature(found["miniature"]),
        "downloads": _downloads(found["downloads"]),
        "disk": f"{_size(found['disk_free'])} free",
        "tools": ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found["tools"].items()),
    }
    lines = [f"{name:<11}{fact}" for name, fact in facts.items()]
    for name, tier in found["tiers"].items():
        verdict = f"can run: {tier['command']}" if tier["can_run"] else "cannot run now:"
        lines.append(f"tier {name:<5} {verdict}")
        lines += [f"{'':<11}- {reason}" for reason in tier["why_not"]]
    return lines


def _size(count: int) -> str:
    from progrpo.weights.manifest import human_size

    return human_size(count)


def _packages(packages: dict[str, dict[str, str | None]]) -> str:
    shown = ", ".join(f"{name} {packages[name]['installed'] or 'missing'}" for name in SHOWN if name in packages)
    other = {
        name: entry
        for name, entry in packages.items()
        if (entry["installed"] or "").partition("+")[0] != entry["locked"]
    }
    told = ", ".join(
        f"{name} {entry['installed'] or 'missing'} (not {entry['locked']})" for name, entry in other.items()
    )
    return f"{shown}\n{'':<11}{len(packages) - len(other)} of {len(packages)} as in requirements.txt" + (
        f"; {told}" if other else ""
    )


def _device(device: dict[str, Any]) -> str:
    gpus = [f"{gpu['name']}, {_size(gpu['memory'])}" for gpu in device["gpus"]]
    return f"{'; '.join(gpus) or 'no GPU'}; {device['cores']} CPU cores, {_size(device['memory'])} of memory"


def _miniature(miniature: dict[str, Any]) -> str:
    here = f"{miniature['files']} files, {_size(miniature['bytes'])}"
    published = f"{miniature['published']['files']} files, {_size(miniature['published']['bytes'])}"
    restore = "`dvc pull --force results/miniature.dvc` brings those" if miniature["restorable"] else "not restorable"
    if miniature["state"] == "published":
        return f"{here}: the published ones, by {'content' if miniature['hashes'] else 'number and size (--hashes compares content)'}"
    if miniature["state"] == "absent":
        return f"not here yet; {'the first `make reproduce` brings' if miniature['restorable'] else 'no remote has'} {published}"
    return f"{here}: {miniature['state']}, the published ones are {published}; {restore}"


def _downloads(downloads: dict[str, dict[str, Any]]) -> str:
    present = [name for name, entry in downloads.items() if entry["state"] == "present"]
    return f"{len(present)} of {len(downloads)} under data/{': ' if present else ''}{', '.join(present)}"
