"""Hooks of mkdocs: the pages of the repository's root, and a reference page per package, without copies of them in git."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    name: name for name in ("ARTIFACT.md", "CONTRIBUTING.md", "CHANGELOG.md")
}  # file of the root -> page of the site
PAGES["README.md"] = "overview.md"  # a README.md would be taken for the index
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")


def modules(package: Path) -> list[str]:
    """Names of the documented modules of a package: those with a docstring, without private ones."""
    names = []
    for path in sorted(package.glob("*.py")):
        if not path.name.startswith("_") and path.read_text().startswith('"""'):
            names.append(".".join(path.relative_to(ROOT / "code").with_suffix("").parts))
    return names


def reference() -> dict[str, str]:
    """{page: text} of the reference, generated from the docstrings."""
    package = ROOT / "code" / "progrpo"
    folders = [package, *sorted(path.parent for path in package.glob("**/__init__.py") if path.parent != package)]
    pages = {}
    for folder in folders:
        if names := modules(folder):
            title = ".".join(folder.relative_to(ROOT / "code").parts)
            pages[f"reference/{title}.md"] = f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"
    pages["reference/index.md"] = "# Reference\n\nGenerated from the docstrings of the code.\n\n" + "\n".join(
        f"- [{Path(page).stem}]({Path(page).name})" for page in pages
    )
    return pages


def relocated(text: str, folder: str) -> str:
    """Links of a page of `folder` (of the repository) as the site has them: docs/ is its root, and other files are named only."""

    def link(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        if target in PAGES or target.startswith("docs/"):
            return f"]({PAGES.get(target, target.removeprefix('docs/'))}{match[2] or ''})"
        if target.startswith("..") or not (ROOT / target).exists():
            raise SystemExit(f"docs: a link to {target}, which does not exist")
        return f"](overview.md#map){{title='{target}'}}"

    return LINK.sub(link, text)


def on_files(files, config):
    """Add the root's pages and the reference to the site."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=relocated((ROOT / name).read_text(), ".")))
    for name, text in reference().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Relocate the links of the pages of docs/; the root's pages have been."""
    if page.file.src_uri in PAGES.values() or page.file.src_uri.startswith("reference/"):
        return markdown
    return relocated(markdown, "docs")
