"""Documents that are made from the code are as the code makes them."""

import subprocess
import sys
from pathlib import Path

CLI_PAGE = Path(__file__).parents[1] / "docs" / "cli.md"


def test_command_line_page_is_current(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    typer = [sys.executable, "-m", "typer", "tinylens.cli", "utils", "docs"]
    subprocess.run(
        [*typer, "--name", "tinylens", "--output", page], check=True, capture_output=True
    )
    assert CLI_PAGE.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), (
        "docs/cli.md is not what the command line says: run `make docs`"
    )
