"""README.md of a Hugging Face data set: the class names in it, read and written.

Of the YAML at its head one thing alone is of interest, the names of a `class_label`, which the
`datasets` library always writes in the same lines; for these no parser of all YAML is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinylens.data.checking import check_class_names
from tinylens.errors import DataError

MAX_BYTES = 10_000_000

_NAMES = re.compile(r"^ +class_label:\n +names:\n((?: +'?[0-9]+'?: .*\n)+)", re.MULTILINE)
_NAME = re.compile(r"^ +'?([0-9]+)'?: (.*)$", re.MULTILINE)


def class_names(path: Path) -> tuple[str, ...]:
    """Return the class names in a data set's README.md; () where it has none or is not there.

    Raises:
        DataError: it names different classes in several places, or some twice.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ()
    head = text.split("\n---", 1)[0] + "\n" if text.startswith("---\n") else ""
    found = {_listed(block) for block in _NAMES.findall(head)}
    if len(found) > 1:
        raise DataError(
            f"{path}: dataset_info names different classes in several places; expected one set of "
            "names: leave the others out"
        )
    names = found.pop() if found else ()
    if len(set(names)) < len(names):
        raise DataError(f"{path}: dataset_info names a class twice; expected each once")
    check_class_names(names, str(path))
    return names


def _listed(block: str) -> tuple[str, ...]:
    numbered = {int(number): _unquoted(text.strip()) for number, text in _NAME.findall(block)}
    return tuple(numbered[number] for number in sorted(numbered))


def _unquoted(text: str) -> str:
    """Return the value of a YAML scalar: plain, in single quotes or in double quotes."""
    if text[:1] == "'" and text[-1:] == "'" and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text


def write(class_names: Sequence[str], parts: Mapping[str, str]) -> str:
    """Return a README.md for shards in data/, with names that `class_names` reads.

    Args:
        class_names: in the order of their numbers.
        parts: the number of examples in each part by Hugging Face's name for it, as text.

    >>> print(write(["cat", "dog"], {"train": "9"}).split("configs:")[0], end="")
    ---
    dataset_info:
      features:
      - name: image
        dtype: image
      - name: label
        dtype:
          class_label:
            names:
              '0': "cat"
              '1': "dog"
      splits:
      - name: train
        num_examples: 9
    """
    lines = ["---", "dataset_info:", "  features:", "  - name: image", "    dtype: image"]
    lines += ["  - name: label", "    dtype:", "      class_label:", "        names:"]
    lines += [
        f"          '{number}': {json.dumps(name)}" for number, name in enumerate(class_names)
    ]
    lines.append("  splits:")
    for part, count in parts.items():
        lines += [f"  - name: {part}", f"    num_examples: {count}"]
    lines += ["configs:", "- config_name: default", "  data_files:"]
    for part in parts:
        lines += [f"  - split: {part}", f"    path: data/{part}-*"]
    return "\n".join([*lines, "task_categories:", "- image-classification", "---", ""])
