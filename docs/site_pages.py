"""A Sphinx extension: pages that are made of files beside ``docs/``, and links to those files.

Links in the pages lead to files of the repository, as they do where it is read as it is; in the site they lead to the
pages that hold those files.
"""

import ast
import textwrap
from pathlib import Path
from typing import Any

import click
import draw_gallery

from fastconv import cli

ROOT = Path(__file__).parent.parent
LINKS = {
    "](../CONTRIBUTING.md": "](contributing.md", "](../examples/README.md": "](examples/index.md",
    "](docs/": "](", "](CHANGELOG.md": "](changelog.md", "](SECURITY.md": "](security.md",
}  # fmt: skip


def write_if_new(path: Path, text: str) -> None:
    """Write a page, unless it is there: Sphinx reads again what has changed."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def in_markdown(said: str) -> str:
    """Return what the head of a script says, but for its first line: indented parts are shown as they are."""
    parts = []
    for part in said.partition("\n")[2].strip("\n").split("\n\n"):
        plain = not all(line.startswith("    ") for line in part.splitlines())
        kept = bool(parts) and parts[-1][0] is plain
        parts.append((plain, part)) if plain or not kept else parts.append((plain, parts.pop()[1] + "\n\n" + part))
    return "\n\n".join(
        part.replace("``", "`") if plain else f"```text\n{textwrap.dedent(part)}\n```" for plain, part in parts
    )


def write_examples(app: Any) -> None:
    """Write ``examples/``: a gallery and the table of the scripts, and a page of each, with what its head says."""
    folder = Path(app.srcdir) / "examples"
    folder.mkdir(exist_ok=True)
    table = (ROOT / "examples" / "README.md").read_text("utf-8")
    names, cards = [], ""
    for script in sorted((ROOT / "examples").glob("*.py")):
        names.append(script.stem)
        table = table.replace(f"[{script.name}]({script.name})", f"[{script.name}]({script.stem}.md)")
        said = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
        title, picture = said.partition("\n")[0].rstrip("."), f"../pictures/examples/{script.stem}.png"
        drawn = " ".join(["--picture FILE", *draw_gallery.OPTIONS.get(script.stem, ())])
        image = f"![What {script.name} draws]({picture})"
        there = (folder / picture).is_file()  # not of all scripts there is one
        linked = f"[{image}]({script.stem}.md)\n\n" * there
        cards += f":::{{container}} card\n{linked}[{title}]({script.stem}.md)\n:::\n"
        shown = f"{image}\n\nDrawn by `{script.name} {drawn}`.\n\n" * there
        write_if_new(
            folder / f"{script.stem}.md",
            f"# {title}\n\n{shown}{in_markdown(said)}\n\n"
            f"```{{literalinclude}} ../../examples/{script.name}\n:language: python\n```\n",
        )
    head, _, rest = table.partition("\n\n")
    toctree = "\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
    write_if_new(folder / "index.md", f"{head}\n\n::::{{container}} gallery\n{cards}::::\n\n{rest}{toctree}")


def write_commands(app: Any) -> None:
    """Write ``commands.md``: what every command says to ``--help``."""
    page = "# Command line\n\nWhat each command says to `--help`.\n"
    waiting: list[tuple[str, click.Command]] = [("fastconv", cli.main)]
    while waiting:
        name, command = waiting.pop(0)
        text = command.get_help(click.Context(command, info_name=name, max_content_width=100))
        page += f"\n## {name}\n\n```text\n{text}\n```\n"
        if isinstance(command, click.Group):
            waiting[:0] = [(f"{name} {part}", command.commands[part]) for part in command.commands]
    write_if_new(Path(app.srcdir) / "commands.md", page)


def lead_to_pages(app: Any, page: str, source: list[str]) -> None:
    """Replace links to files of the repository by links to their pages."""
    for file, target in LINKS.items():
        source[0] = source[0].replace(file, target)


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("builder-inited", write_examples, priority=100)
    app.connect("builder-inited", write_commands, priority=100)
    app.connect("source-read", lead_to_pages)
    app.connect("include-read", lambda app, path, page, content: lead_to_pages(app, page, content))
    return {"parallel_read_safe": True}
