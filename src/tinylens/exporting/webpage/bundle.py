"""The page's modules as one script: a page that is opened from a file may not import others.

Each module becomes a function that returns what the module exports; a module takes what it imports
from those before it. Of the language's many ways to import and export, two are known here: named
imports from a module beside, and `export` before a function, a class or a constant.
"""

from __future__ import annotations

import re
from importlib import resources

# in an order in which each comes after all that it imports
OWN = ("resample.js", "frame.js", "pixels.js", "network.js", "evaluate.js", "here.js")
SHARED = ("dom.js", "look.js", "answer.js", "csv.js")
SHEET = ("sheet.js", "images.js")
STYLES = ("base.css", "answer.css", "page.css")
RUNTIME = "onnxruntime.js"  # what the modules call onnxruntime-web

_IMPORT = re.compile(r'^import \{([^{}]+)\} from "\./([\w.-]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)
_EXPORT_LIST = re.compile(r"\bexport\s*\{([^{}]+)\};?\s*(?://# sourceMappingURL=\S+\s*)?\Z")


def own(name: str) -> str:
    """Return the text of a file of this page alone."""
    return (resources.files("tinylens.exporting.webpage") / "static" / name).read_text("utf-8")


def shared(name: str) -> str:
    """Return the text of a file that the served page has too."""
    # by way of the package's root: the server itself is not imported for a file of its
    return (resources.files("tinylens") / "serving" / "static" / name).read_text("utf-8")


def style() -> str:
    """Return how the page looks."""
    return "\n".join([*(shared(name) for name in STYLES), own("here.css")])


def sections() -> str:
    """Return what the served page has between head and foot: intake, answer and sheet."""
    match = re.search(r"<section\b.*</section>", shared("index.html"), re.DOTALL)
    if match is None:
        raise ValueError("the served page has no sections")
    return match[0]


def script(runtime: str) -> str:
    """Return the page's script, with onnxruntime-web's module of the text `runtime` in it."""
    parts = ["const modules = {};", _wrapped(RUNTIME, _with_return(runtime))]
    texts = [(name, own(name)) for name in OWN]
    texts += [(name, shared(name)) for name in SHARED]
    texts += [("server.js", own("server.js"))]  # the sheet expects one
    texts += [(name, shared(name)) for name in SHEET]
    texts += [("page.js", own("page.js"))]
    joined = "\n".join([*parts, *(_wrapped(name, _rewritten(text)) for name, text in texts)])
    if "</script" in joined or "<!--" in joined or "\r" in joined:
        raise ValueError("a script with </script, <!-- or a carriage return cannot be in a page")
    return joined


def _wrapped(name: str, body: str) -> str:
    return f'modules["{name}"] = (() => {{\n{body}\n}})();'


def _rewritten(text: str) -> str:
    """Return a module's text as the body of a function."""
    names = ", ".join(match[1] for match in _EXPORT.finditer(text))
    body = _IMPORT.sub(lambda match: f'const {{{match[1]}}} = modules["{match[2]}"];', text)
    body = _EXPORT.sub("", body)
    if left := re.search(r"^(?:import|export)\b.*$", body, re.MULTILINE):
        raise ValueError(f"a module's line is in no form that can be rewritten: {left[0]}")
    return f"{body}\nreturn {{ {names} }};"


def _with_return(text: str) -> str:
    """Return a module that ends with a list of exports, as minifiers write it, with `return`."""
    match = _EXPORT_LIST.search(text)
    if match is None:
        raise ValueError("onnxruntime-web's module does not end with a list of its exports")
    pairs = [pair.split(" as ") for pair in match[1].split(",")]
    names = ", ".join(f"{pair[-1].strip()}: {pair[0].strip()}" for pair in pairs)
    return f"{text[: match.start()]}return {{ {names} }};"
