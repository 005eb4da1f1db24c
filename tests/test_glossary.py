"""The field's names: words that this project no longer uses, and where they may not occur.

docs/architecture.md and the code say image, split, out-of-distribution, evaluate, curriculum.
"""

import ast
import re
from pathlib import Path

import pytest
import typer.main

from tinylens import cli

PACKAGE = Path(cli.__file__).parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = [
    path
    for pattern in ("*.jinja", "*.html", "*.js", "*.toml")
    for path in sorted(PACKAGE.rglob(pattern))
]
NEVER = re.compile(r"\b(pictures?|strangers?|strangeness|watchers?|doctors?)\b", re.IGNORECASE)
IDENTIFIERS = {
    *("picture", "pictures", "stranger", "strangers", "strangeness", "strange", "course"),
    *("judge", "judged", "judging", "bend", "bent", "told", "tell", "taught", "asked", "doctor"),
    *("deciding", "watcher", "watching"),
}


def definitions(tree: ast.Module):
    """Yield every name that a module defines: functions, classes, arguments, variables, fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def first_lines(tree: ast.Module):
    """Yield the first line of every docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield (ast.get_docstring(node) or "").partition("\n")[0]


def texts(tree: ast.Module):
    """Yield every string, docstrings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_speaks_the_fields_language(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    names = {
        name
        for name in definitions(tree)
        if IDENTIFIERS & set(re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_"))
    }
    assert names == set()
    assert [line for line in (*first_lines(tree), *texts(tree)) if NEVER.search(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_page_speaks_the_fields_language(page: Path) -> None:
    assert NEVER.findall(page.read_text(encoding="utf-8")) == []


def test_no_option_has_an_old_name() -> None:
    root = typer.main.get_command(cli.app)
    groups = [root, *(each for each in root.commands.values() if hasattr(each, "commands"))]
    options = {
        option
        for group in groups
        for command in group.commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    old = {option for option in options if IDENTIFIERS & set(option.strip("-").split("-"))}
    assert old == set()
