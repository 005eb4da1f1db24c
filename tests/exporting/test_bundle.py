"""The page's modules as one script."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tinylens.exporting.webpage import bundle

MINIFIED = """var a=1,b=2;
export{a as env,b as InferenceSession,b as Tensor};
//# sourceMappingURL=x.map
"""


def test_a_module_returns_what_it_exports():
    text = 'import { a, b } from "./x.js";\nexport const c = a;\nexport async function d() {}\n'
    assert bundle._rewritten(text) == (
        'const { a, b } = modules["x.js"];\nconst c = a;\nasync function d() {}\n\nreturn { c, d };'
    )


@pytest.mark.parametrize(
    "line", ["export default 1;", 'import x from "./x.js";', 'export { a } from "./x.js";']
)
def test_what_cannot_be_rewritten_is_refused(line):
    with pytest.raises(ValueError, match="in no form that can be rewritten"):
        bundle._rewritten(f"const a = 1;\n{line}\n")


def test_a_minified_module_returns_what_it_exports():
    assert bundle._with_return(MINIFIED) == (
        "var a=1,b=2;\nreturn { env: a, InferenceSession: b, Tensor: b };"
    )
    with pytest.raises(ValueError, match="does not end with a list of its exports"):
        bundle._with_return("var a=1;")


def test_a_script_that_would_end_its_own_element_is_refused():
    with pytest.raises(ValueError, match="cannot be in a page"):
        bundle.script('var a="</script>";export{a as env};')


def test_every_module_comes_after_what_it_imports():
    script = bundle.script(MINIFIED)
    made = []
    for line in script.splitlines():
        if line.startswith('modules["'):
            made.append(line.split('"')[1])
        if " = modules[" in line:
            assert line.split('"')[1] in made, line
    assert made[0] == "onnxruntime.js" and made[-1] == "page.js"


def test_the_script_is_a_valid_one(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("no node to check the syntax with")
    path = tmp_path / "script.mjs"
    path.write_text(bundle.script(MINIFIED), "utf-8")
    done = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
