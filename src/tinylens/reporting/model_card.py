"""README.md of a run: the model card (Mitchell et al. 2019) in Hugging Face's form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import jinja2

from tinylens import files
from tinylens.reporting.contents import Contents
from tinylens.reporting.document import PACKAGE
from tinylens.reporting.wording import SPLIT_ORDER, interval_text, shown_figures, value_text
from tinylens.results import Score, percent

HUB_NAMES: Mapping[str, str] = {  # of the known sets, at Hugging Face
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "mnist": "ylecun/mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
INDEXED = {"accuracy": "accuracy", "f1_macro": "f1", "log_loss": "log_loss", "ece": "ece"}
WORST = 3  # classes and confusions to name as limits
MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$]|^[-+#]|(?<=^\d)[.)])")  # a list, a heading: at the start
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # YAML wants them escaped


def render(contents: Contents) -> str:
    """Return the card as Markdown under YAML. Whatever comes from the run is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE),
        autoescape=False,  # not HTML: `text` escapes what Markdown would take for its own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "text": markdown_text, "yaml": yaml_text}
    present = [scores for scores in contents.test.per_class if scores.support]
    return environment.get_template("model_card.md.jinja").render(
        contents=contents,
        info=contents.info,
        test=contents.test,
        dataset=_dataset(contents),
        parts=[name for name in SPLIT_ORDER if name in contents.evaluation.splits],
        indexed=_indexed(contents),
        figures=shown_figures(len(contents.class_names)),
        value=value_text,
        interval=interval_text,
        worst=sorted(present, key=lambda scores: scores.recall.value or 0.0)[:WORST],
        confusions=contents.confusions[:WORST],
    )


def markdown_text(text: object) -> str:
    r"""Return text in one line that Markdown shows as it is.

    >>> print(markdown_text("a|b\n*c*"))
    a\|b \*c\*
    """
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def yaml_text(text: object) -> str:
    r"""Return text as a quoted YAML string; JSON's are such, but for what YAML cannot print.

    >>> print(yaml_text('say "é": \n'))
    "say \"é\": \n"
    """
    quoted = json.dumps(str(text), ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _dataset(contents: Contents) -> dict[str, str]:
    """Return the set's name, its name at Hugging Face or "", and a word for what kind it is."""
    source = contents.info.dataset
    known = HUB_NAMES.get(source, "")
    name = source if known else PurePath(source).name or source
    return {"name": name, "known": known, "type": known or f"local/{files.slug(source)}"}


def _indexed(contents: Contents) -> list[dict[str, Any]]:
    """Return the figures of test that go into the model index; what is not defined is left out."""
    rows = []
    for figure in shown_figures(len(contents.class_names)):
        score: Score = getattr(contents.test, figure.field)
        if figure.field in INDEXED and score.value is not None and score.ci95 is not None:
            low, high = score.ci95
            kind = INDEXED[figure.field]
            ends = f"[{low:.4f}, {high:.4f}]"
            rows.append(
                {"type": kind, "name": figure.title, "value": f"{score.value:.4f}", "ci95": ends}
            )
    return rows
