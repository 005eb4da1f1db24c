"""The public surface of the package, and what starting it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import typer.main

import tinylens
from tinylens import cli

SLOW_TO_IMPORT = (
    *("fastapi", "jax", "keras", "matplotlib", "onnxruntime"),
    *("pyarrow", "sklearn", "tensorflow", "torch", "uvicorn"),
)


def test_every_verb_and_every_option_has_a_help_text() -> None:
    commands = list(walk(typer.main.get_command(cli.app), "tinylens"))
    options = [
        f"{path} {parameter.name}"
        for path, command in commands
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert options + [path for path, command in commands if not command.help] == []


def walk(command, path):
    """Yield every command below `command` with what a user types for it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, f"{path} {name}")


def test_type_checkers_know_the_public_names() -> None:
    stub = ast.parse(Path(tinylens.__file__).with_suffix(".pyi").read_text("utf-8"))
    declared = {
        alias.asname: f"{line.module}.{alias.name}"
        for line in stub.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert tinylens.__all__ == sorted(tinylens.__all__)
    loaded = {name: getattr(tinylens, name) for name in tinylens.__all__}
    assert declared == {name: f"{each.__module__}.{name}" for name, each in loaded.items()}


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
