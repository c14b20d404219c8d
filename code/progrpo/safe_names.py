"""The one way from a name that came from outside (a prompt, a style, a manifest, an index of images) to a path."""

import hashlib
import re
import unicodedata
from pathlib import Path, PurePosixPath

LONGEST = 255  # bytes of a file name, on Linux and macOS


def file_name(text: str, ending: str = "") -> str:
    """`text` + `ending` as the name of one file or folder, at most 255 bytes.

    Text that can be a name stays as it is. Otherwise separators, control characters and leading dots become `_`, a long text
    is cut, and eight digits of its SHA-256 keep different texts apart (up to 2^-32).
    """
    clean = "".join("_" if c in "/\\" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    clean = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), clean) or "_"
    if clean == text and len((clean + ending).encode()) <= LONGEST:
        return clean + ending
    tail = "~" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8] + ending
    return clean.encode()[: LONGEST - len(tail.encode())].decode(errors="ignore") + tail


def relative_name(name: str) -> str:
    """The name when it can only mean something below a folder; ValueError says why it cannot."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ValueError(f"{name!r} is not a name inside the folder")
    if "\\" in name or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise ValueError(f"{name!r} holds a character that no file name may have")
    if any(len(part.encode()) > LONGEST for part in parts):
        raise ValueError(f"{name[:40]!r}... is longer than the {LONGEST} bytes of a file name")
    return name


def path_inside(folder: Path, name: str) -> Path:
    """`folder / name`; ValueError when the name, or a linked folder on the way, leads out of the folder.

    The file itself may be a link: DVC and the hub's cache link files.
    """
    path = folder / relative_name(name)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of {folder}")
    return path
