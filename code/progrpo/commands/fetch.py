"""`progrpo fetch NAME`: prompt sets and weights of the manifest."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter
from progrpo.errors import UserError


def add_parser(commands) -> None:
    """Add `fetch` to the command line."""
    parser = commands.add_parser(
        "fetch",
        help="download a prompt set or model weights, verified",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="name in the manifest")
    parser.add_argument("--list", action="store_true", help="list the manifest: name, size, licence, use")
    parser.add_argument("--json", action="store_true", help="with --list: every entry whole, as JSON")
    parser.add_argument("--to", type=Path, help="folder to write (default: data/NAME)")
    parser.add_argument("--from-folder", type=Path, help="local folder that has the files; no network is used")
    parser.add_argument("--yes", action="store_true", help="do not ask before more than 1 GB")
    parser.add_argument("--manifest", type=Path, help="another manifest file (default: the packaged one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """List the manifest or fetch one of its entries."""
    from progrpo.files import to_json
    from progrpo.weights.fetch import fetch
    from progrpo.weights.manifest import FIRST, find_entry, human_size, packaged_manifest, read_manifest

    if arguments.manifest and not arguments.manifest.is_file():
        raise UserError(f"{arguments.manifest}: no such manifest")
    entries = read_manifest(arguments.manifest) if arguments.manifest else packaged_manifest()
    if arguments.json and not arguments.list:
        raise UserError("--json prints the manifest: give --list with it")
    if arguments.json:
        print(to_json({name: entry.model_dump() for name, entry in entries.items()}, "the manifest", indent=1))
        return
    if arguments.list:
        for name, entry in entries.items():
            count = f", {entry.count} prompts" if entry.count else ""
            print(f"{name:<22} {human_size(entry.size):>9}{count}  [{entry.licence}]\n{'':<23}{entry.use}")
        return
    if arguments.name is None:
        raise UserError("give the name of what to fetch, or --list")
    entry = find_entry(arguments.name, entries)
    to = arguments.to or Path("data") / arguments.name
    first = None if arguments.manifest else FIRST / f"{arguments.name}.json"
    for path in fetch(arguments.name, entry, to, arguments.from_folder, arguments.yes, first=first):
        print(path)
