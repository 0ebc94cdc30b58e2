"""The documentation's pages and the commands that they show."""

import re
from collections.abc import Container

from helpers.checkout import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def commands() -> list[tuple[str, str]]:
    """Each command of the shell blocks with its page; continued lines are joined, comments are dropped."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text("utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                text = re.sub(r"\s+#\s.*$", "", line).strip().removeprefix("$ ")
                if text and not text.startswith("#"):
                    found.append((page.relative_to(ROOT).as_posix(), text))
    return found


def inline_commands(programs: Container[str]) -> list[str]:
    """Each `program with words` of the running text; with `…` in it it is no whole one."""
    found = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
        for shown in re.findall(r"`([^`\n]+)`", text):
            first, *rest = shown.split()
            if rest and "…" not in shown and first.rsplit("/", 1)[-1] in programs:
                found.append(shown)
    return found
