"""Write down what an audit found in a data set, with images: a page for docs/.

Usage: python scripts/audit_sheet.py DATASET FOLDER NAME, where FOLDER holds the audit.json of
`tinylens audit DATASET --folds 5`; writes docs/NAME.md and docs/NAME.png.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tinylens import files
from tinylens.data.dataset import Dataset
from tinylens.data.encoded import Options
from tinylens.data.load import load_parts
from tinylens.reporting.charts import as_png, new_figure
from tinylens.reporting.wording import shortened
from tinylens.results import Audit
from tinylens.run import Run

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAIRS, LABELS, COLUMNS = 12, 24, 12
LISTED = 40  # doubted labels in the table


def main() -> None:
    """Write the page and its image."""
    dataset, folder, name = sys.argv[1:4]
    audit = Run(folder).audit
    if audit is None:
        raise SystemExit(f"{folder} has no audit.json; run tinylens audit {dataset} --folds 5")
    parts = dict(load_parts(dataset, Options()).items())
    files.write_bytes(DOCS / f"{name}.png", draw(audit, parts))
    files.write_text(DOCS / f"{name}.md", describe(audit, dataset, name))


def draw(audit: Audit, parts: dict[str, Dataset]) -> bytes:
    """Return the leaks, one above the other, and the most doubtful labels of test, as a PNG."""
    issues = [issue for issue in audit.label_issues if issue.split == "test"][:LABELS]
    rows = 2 + -(-len(issues) // COLUMNS)
    figure = new_figure(COLUMNS * 1.05, rows * 1.45)
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for twin, column in zip(audit.leaks[:PAIRS], range(COLUMNS), strict=False):
        ends = zip(twin.splits, (twin.a, twin.b), twin.labels, strict=True)
        for row, (part, index, label) in enumerate(sorted(ends, reverse=True)):
            _show(panels[row, column], parts[part].images[index], f"{part} {index}\n{label}")
    for number, issue in enumerate(issues):
        image = parts["test"].images[issue.index]
        words = f"{shortened(issue.given, 11)}?\n{shortened(issue.proposed, 13)}"
        _show(panels[2 + number // COLUMNS, number % COLUMNS], image, words)
    return as_png(figure)


def _show(axes: Axes, image: np.ndarray, words: str) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes.set_title(words, fontsize=7)


def describe(audit: Audit, dataset: str, name: str) -> str:
    """Return the page."""
    exact = sum(twin.distance == 0 for twin in audit.duplicates)
    counts = Counter(issue.split for issue in audit.label_issues)
    confused = Counter(
        (issue.given, issue.proposed) for issue in audit.label_issues if issue.split == "test"
    )
    test = [issue for issue in audit.label_issues if issue.split == "test"]
    leaks = ", ".join(_leak(twin.splits, (twin.a, twin.b)) for twin in audit.leaks)
    return "\n".join(
        [
            f"# What `tinylens audit` finds in {dataset}",
            "",
            f"Written by `scripts/audit_sheet.py` from `tinylens audit {dataset} --folds 5`; "
            "nothing was planted or changed. Rows count from 0 in the published files.",
            "",
            f"![The leaks found first, and the most doubtful labels of test]({name}.png)",
            "",
            "Above: images of train and, below each, the image of test that is the same. Then "
            "images of test with the label that they have, and the one that networks give "
            "which never saw them.",
            "",
            f"- **{len(audit.leaked)} test images are in train, too**, in {len(audit.leaks)} "
            f"pairs; {len(audit.duplicates) - len(audit.leaks)} further pairs lie within one part. "
            f"{exact} pairs are equal to the last bit, the others differ by a shift or in "
            f"brightness. {len(audit.contradictions)} pairs carry two different labels.",
            "- **Labels that are probably wrong**: "
            + ", ".join(f"{count:,} in {part}" for part, count in sorted(counts.items()))
            + ". In test most often "
            + ", ".join(f"{a} for {b} ({n})" for (a, b), n in confused.most_common(5))
            + ". Whether each is wrong is for a person to say: classes such as Shirt and "
            "T-shirt/top have no clear border.",
            f"- **Leaks**, train row = test row: {leaks}.",
            "",
            f"The {min(LISTED, len(test))} most doubtful labels of test:",
            "",
            "| row | label | rather | its label's probability |",
            "|---|---|---|---|",
            *(
                f"| {issue.index} | {issue.given} | {issue.proposed} | {1 - issue.score:.5f} |"
                for issue in test[:LISTED]
            ),
            "",
        ]
    )


def _leak(splits: Sequence[str], rows: Sequence[int]) -> str:
    at = dict(zip(splits, rows, strict=True))
    return f"{at['train']} = {at['test']}"


if __name__ == "__main__":
    main()
