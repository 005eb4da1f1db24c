"""The shape of the package: what may grow, and what may not."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

import tinylens
from tinylens import cli

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tinylens"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES = 400
FUNCTION_LINES = 60

# A verb of the command line, and the module that does it.
MODULE_OF_VERB = {
    "audit": "auditing",
    "compare": "comparison",
    "data": "data",
    "evaluate": "evaluation",
    "learning-curve": "learning_curve",
    "explain": "explaining",
    "export": "exporting",
    "predict": "predicting",
    "recipes": "recipe",
    "report": "reporting",
    "robustness": "robustness",
    "serve": "serving",
    "train": "training",
    "tune": "tuning",
    "verify": "verification",
}
PUBLIC_NAMES = [
    "Audit",
    "Classifier",
    "Comparison",
    "Dataset",
    "Evaluation",
    "Recipe",
    "Run",
    "SmallImageClassifier",
    "Splits",
    "audit",
    "compare",
    "evaluate",
    "export",
    "load",
    "train",
    "verify",
]
SLOW_TO_IMPORT = (
    "fastapi",
    "jax",
    "keras",
    "matplotlib",
    "onnxruntime",
    "pyarrow",
    "sklearn",
    "tensorflow",
    "torch",
    "uvicorn",
)


def name_of(source: Path) -> str:
    """Return a file's module name, "tinylens.data.images"."""
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(source) for source in SOURCES}


def parsed(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"), filename=str(source))


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_module_is_short(source: Path) -> None:
    lines = len(source.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_functions_are_short(source: Path) -> None:
    long = {
        f"{node.name}, line {node.lineno}": lines_without_docstring(node)
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines_without_docstring(node) > FUNCTION_LINES
    }
    assert long == {}


def test_every_verb_is_done_by_the_module_of_its_name() -> None:
    verbs = set(typer.main.get_command(cli.app).commands)
    assert verbs == set(MODULE_OF_VERB)
    missing = {name for name in MODULE_OF_VERB.values() if f"tinylens.{name}" not in MODULES}
    assert missing == set()


def test_every_verb_and_every_option_has_a_help_text() -> None:
    bare = [
        f"{path} {parameter.name}"
        for path, command in walk(typer.main.get_command(cli.app), "tinylens")
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    silent = [
        path
        for path, command in walk(typer.main.get_command(cli.app), "tinylens")
        if not command.help
    ]
    assert bare + silent == []


def walk(command, path):
    """Yield every command below `command` with what a user types for it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, f"{path} {name}")


def test_public_names_are_the_listed_ones() -> None:
    assert tinylens.__all__ == PUBLIC_NAMES
    assert {name for name in PUBLIC_NAMES if getattr(tinylens, name, None) is None} == set()


def test_type_checkers_are_told_of_the_public_names() -> None:
    stub = ast.parse(Path(tinylens.__file__).with_suffix(".pyi").read_text("utf-8"))
    told = {
        alias.asname: f"{line.module}.{alias.name}"
        for line in stub.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    loaded = {name: getattr(tinylens, name) for name in PUBLIC_NAMES}
    assert told == {name: f"{each.__module__}.{name}" for name, each in loaded.items()}


def test_command_line_starts_without_heavy_libraries() -> None:
    program = f"""
import sys
import tinylens.cli
print(*[name for name in {SLOW_TO_IMPORT!r} if name in sys.modules])
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == ""


def test_help_is_printed_with_exit_code_0() -> None:
    command = [sys.executable, "-m", "tinylens", "--help"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Train, check, explain and ship classifiers for small images." in result.stdout


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_module_does_not_import_the_package_root(source: Path) -> None:
    if name_of(source) == "tinylens.cli":
        return  # it prints the version
    roots = [node.lineno for node in ast.walk(parsed(source)) if imports_root(node)]
    assert roots == []


def imports_root(node: ast.AST) -> bool:
    """Return whether a statement takes something from the root that is not a module."""
    if isinstance(node, ast.Import):
        return any(alias.name == "tinylens" for alias in node.names)
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "tinylens"
        and any(f"tinylens.{alias.name}" not in MODULES for alias in node.names)
    )


def test_every_module_stands_in_a_layer() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    named = {name.strip(" ()") for layer in layers for name in layer.replace("|", ":").split(":")}
    parents = {"tinylens", *(name.rpartition(".")[0] for name in named)}
    homeless = {
        module
        for module in MODULES - named - parents
        if not any(module.startswith(f"{name}.") for name in named)
    }
    assert homeless == set()


def test_architecture_page_names_every_module_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.partition("```\nsrc/tinylens/\n")[2].partition("\ntests/")[0]
    paths: list[Path] = []
    folder = {0: Path()}
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        path = folder[depth - 1] / line.split()[0]
        folder[depth] = path
        paths.append(path)
    named = {str(path) for path in paths if path.suffix == ".py"}
    kept = {str(source.relative_to(PACKAGE)) for source in SOURCES}
    folders = {f"{path}/__init__.py" for path in paths if path.suffix != ".py"}
    assert kept - named - folders == set()
    assert named - kept == set()
