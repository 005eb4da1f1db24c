"""Every `python` and `sh` block of the README runs as it is printed, in order and in one folder.

A block that cannot has `<!-- not run: reason -->` on the line above it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n```(?P<language>python|sh)\n(?P<code>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
INTERPRETERS = {
    "python": [sys.executable, "-c"],
    "sh": ["bash", "-euo", "pipefail", "-c"],
}


def blocks() -> list[tuple[str, str, str]]:
    """Return (reason not to run or "", language, code) of every block, in order."""
    found = []
    for match in BLOCK.finditer(README.read_text(encoding="utf-8")):
        reason = re.fullmatch(r"<!-- not run: (.+) -->", match["before"].strip())
        found.append((reason[1] if reason else "", match["language"], match["code"]))
    return found


def test_readme_shows_python_and_the_two_commands() -> None:
    shown = [code for _, _, code in blocks()]
    assert any("import tinylens as tl" in code for code in shown)
    assert any("make demo" in code and "make test" in code for code in shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.slow
def test_readme_examples_run(tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    runnable = [(language, code) for reason, language, code in blocks() if not reason]
    assert runnable
    for language, code in runnable:
        result = subprocess.run(
            [*INTERPRETERS[language], code],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
