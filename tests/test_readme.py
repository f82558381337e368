"""What README.md and docs promise exists: commands, flags, settings, exit codes, links, and marked commands."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gkiller import errors
from gkiller.cli.lazy import COMMANDS, load_command
from gkiller.settings import preset_names, settings_by_key

ROOT = Path(__file__).parent.parent
WRITTEN = ("cli.md", "settings.md")  # by tools/make_docs.py
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in WRITTEN)
TEXT = "\n".join([README, *(path.read_text(encoding="utf-8") for path in PAGES)])
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
OPERATORS = {"&&", "||", "|", ";", ">", "<"}


def fenced(*kinds: Any) -> list[str]:
    return [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S) if kind in kinds]


def split_commands(line: str) -> Iterator[list[str]]:
    """Yield the single commands of a shell line, as words."""
    words = shlex.split(line, comments=True)
    start = 0
    for end, word in [*enumerate(words), (len(words), ";")]:
        if word in OPERATORS:
            yield words[start:end]
            start = end + 1


def mentioned_commands() -> list[list[str]]:
    """Return the arguments of each gkiller command in the README: shell blocks and inline code."""
    lines = []
    for block in fenced("bash", "sh"):
        lines += block.replace("\\\n", " ").splitlines()
    for block in fenced("console"):
        lines += [line[2:] for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    lines += re.findall(r"`([^`\n]*gkiller [^`\n]*)`", PROSE)
    commands = [words for line in lines for words in split_commands(line)]
    return [words[1:] for words in commands if words and words[0].split("/")[-1] == "gkiller"]


def options_of(command: Any) -> set[Any]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def unknown_parts(arguments: list[str]) -> list[Any]:
    """Return what the command line does not know of these arguments."""
    top = {"--debug", "--version", "--help", "-h"}
    arguments = [a for a in arguments if a not in top and a != "..."]
    if not arguments:
        return []
    name, *rest = arguments
    if name not in COMMANDS:
        return [name]
    command = load_command(name)
    children = getattr(command, "commands", {})
    if children and rest:
        if rest[0] not in children:
            return [f"{name} {rest[0]}"]
        command, rest = children[rest[0]], rest[1:]
    known = {*options_of(command), "--help", "-h"}
    return [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]


def test_the_reader_of_commands_finds_faults() -> None:
    assert unknown_parts(["train", "--epochs", "3"]) == []
    assert unknown_parts(["train", "--epocs", "3"]) == ["--epocs"]
    assert unknown_parts(["data", "prepair"]) == ["data prepair"]
    assert unknown_parts(["predickt"]) == ["predickt"]
    assert list(split_commands("a -b && c 'd e' | f")) == [["a", "-b"], ["c", "d e"], ["f"]]


def test_commands_and_flags_exist() -> None:
    found = mentioned_commands()
    assert {words[0] for words in found if words} >= set(COMMANDS)
    wrong = [(" ".join(words), unknown_parts(words)) for words in found if unknown_parts(words)]
    # The README shows how a misspelt flag is answered.
    assert wrong == [("train --epocs 3", ["--epocs"])]


def test_flags_in_prose_exist() -> None:
    known = {"--debug", "--version", "--help", "--index-url", "--no-optional-locks", "--corpora"}
    for name in COMMANDS:
        command = load_command(name)
        for part in (command, *getattr(command, "commands", {}).values()):
            known |= options_of(part)
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", re.sub(r"<!--.*?-->", "", PROSE)))
    assert mentioned
    assert mentioned - known == set()


def test_settings_and_variables_exist() -> None:
    sections = "|".join({entry.section for entry in settings_by_key().values()})
    mentioned = set(re.findall(rf"(?:`|--set )((?:{sections})\.[a-z_]+)(?==|`)", TEXT))
    files = {"evaluation.json", "train.parquet", "model.safetensors", "sweep.json", "sweep.png"}
    assert mentioned - files
    assert mentioned - files - set(settings_by_key()) == set()
    variables = {entry.env for entry in settings_by_key().values()}
    assert set(re.findall(r"GKILLER_[A-Z_]+", TEXT)) <= variables
    for name in re.findall(r"--preset (\w+)", TEXT):
        assert name in preset_names()


def test_exit_codes_exist() -> None:
    def codes(error: Any) -> Any:
        return {error.exit_code}.union(*(codes(child) for child in error.__subclasses__()))

    mentioned = {int(code) for code in re.findall(r"exit code (\d+)", TEXT)}
    assert mentioned
    assert mentioned <= codes(errors.GkillerError)


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in PAGES)])
def test_links_lead_somewhere(name: str) -> None:
    source = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", source.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = source.parent / file if file else source
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path), f"{name}: {target}"


def test_marked_commands_are_one_line_each() -> None:
    path = ROOT / "tools" / "readme_command.py"
    spec = importlib.util.spec_from_file_location("readme_command", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.commands(README)
    assert set(found) == {"first-run", "test"}
    assert all(text.count("\n") == 1 and text.endswith("\n") for text in found.values())
    assert "gkiller train" in found["first-run"]
    assert "pytest" in found["test"]
    with pytest.raises(ValueError, match="no fenced"):
        module.commands("<!-- command: x -->\ntext\n")
    with pytest.raises(ValueError, match="same mark"):
        module.commands("<!-- command: x -->\n```bash\na\n```\n" * 2)


def test_the_version_is_the_changelogs() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert f"## [{version[1]}]" in text
