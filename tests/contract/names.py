"""Every name of the outside that a renaming may change: edit this table, and nothing else.

The tests say what happens; this table says what it is called. Names that are the field's own
(`accuracy`, `confusion`, `path`) stand in the tests themselves.
"""

from __future__ import annotations

import signal

# --- Words that are to be renamed, each in one place
IMAGES = "images"  # a count in JSON
SPLITS = "parts"  # of `data info`
SPLIT = "part"  # of a row of a scorecard
OOD = "ood"  # in evaluation.json and in the seconds of run.json
OOD_SCORE = "ood_score"  # of an image
ISSUES = "findings"  # of the input checks, in a row of a prediction
CURVATURE = "curvature"  # of a calibration
EXPLAINED_CLASSES = "asked"  # in explanations.json
BALANCE = "balance"  # what was done about uneven classes

# --- Options and recipe keys
REJECT_OOD = "--reject-ood"
IMAGES_OPTION = "--images"  # of robustness, verify and serve
DISTIL_OPTION = "--distil"
RECIPE_RENAMED = (
    "progressive_resize_scale",
    "progressive_resize_fraction",
    "hard_example_fraction",
    "hard_examples_from",
)  # of [train]
RECIPE_VIEWS = "tta_views"  # of [model]
RECIPE_RATES = ("head_lr_multiplier", "bias_lr_multiplier", "vector_momentum")  # of [optimizer]
BODY_OPTION = "--body"  # of serve, MiB

# --- What a training does and needs
RECIPES = {"accurate", "backbone", "classic", "classic-augmented", "fast", "small"}
VERBS = {
    "train": {"--recipe", "--set", "--epochs", "--seed", "--val", "--size", "--out", "--backend",
              "--budget", "--seeds", "--folds", "--ensemble", "--from", "--backbone", "--weights",
              "--learning-curve", "--threads", "--precision", "--strict", "--max-error",
              "--fresh", DISTIL_OPTION, REJECT_OOD},
    "tune": {"--budget", "--trials", "--search", "--jobs", "--recipe", "--set", "--out"},
    "predict": {"--top", "--max-error", REJECT_OOD, "--coverage", "--fix", "--csv", "--parquet"},
    "evaluate": {"--split"},
    "compare": {"--data", "--out"},
    "robustness": {IMAGES_OPTION, "--seed"},
    "audit": {"--folds", "--recipe", "--out"},
    "explain": {"--class", "--method", "--out"},
    "learning-curve": {"--data"},
    "report": set(),
    "recipes": set(),
    "export": {"--format", "--out", "--onnxruntime-web"},
    "verify": {"--against", "--split", "--min-agreement", "--max-difference", "--max-loss"},
    "serve": {"--host", "--port", "--workers", "--token-file", "--allow-host", "--queue",
              IMAGES_OPTION, "--batch", BODY_OPTION, "--deadline", "--read-timeout",
              "--log-requests"},
    "data info": {"--val", "--test", "--size", "--strict"},
    "data apply": {"--out"},
    "data convert": {"--format"},
}  # fmt: skip

# --- Files
RUN_FILES = {
    "recipe.toml", "run.json", "history.csv", "model.keras", "model.onnx", "evaluation.json",
    "predictions.npz", "report.html", "README.md", "plots/confusion_matrix.png", "plots/curves.png",
    "plots/reliability.png", "plots/per_class.png",
}  # fmt: skip
RUN_KEYS = {
    "state", "command", "seed", "backend", "precision", "deterministic", "dataset", "fingerprint",
    "class_names", "splits", "image", "notes", "started", "finished", "seconds", "plan", BALANCE,
    "teacher", "source", "members", "test_opened", "versions", "hardware", "error",
}  # fmt: skip
RUN_SECONDS = {"load", "train", "evaluate", OOD, "export", "total"}
EVALUATION_KEYS = {"splits", "gap", "calibration", OOD}
CALIBRATION_KEYS = {
    "temperature", "chosen_on", "log_loss_before", "log_loss_after", "brier_before", "brier_after",
    "ece_before", "ece_after", "levels", "sets", CURVATURE,
}  # fmt: skip
OOD_KEYS = {"name", IMAGES, "roc_auc", "refused", "at"}
HISTORY_COLUMNS = [
    "epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy", "images_per_second",
    "seconds",
]  # fmt: skip
WORST_ARRAYS = {"worst_indices", "worst_images", "confused_indices", "confused_images"}

# --- What --json prints, by verb
TRAIN_KEYS = {"run", "model", "report", "evaluation", BALANCE, "explained"}
INFO_KEYS = {
    "source", "class_names", "image_shape", "aspect", SPLITS, "channel_mean", "channel_std",
    "fingerprint", "notes", "sheet",
}  # fmt: skip
COMPARE_KEYS = {"runs", "accuracies", "pairs", "files", "notes"}
PAIR_KEYS = {
    "first", "second", "n", "only_first", "only_second", "both_wrong", "accuracy", "f1_macro",
    "log_loss", "p_value", "classes", "better", "words",
}  # fmt: skip
ROBUSTNESS_KEYS = {
    IMAGES, "clean", "corruptions", "mean_corruption_error", "shifts", "turns", "mirrored", "jpeg",
}  # fmt: skip
AUDIT_KEYS = {
    "source", "class_names", "counts", "doubted", "compared", "label_issues", "duplicates",
    "outliers", "odd", "broken",
}  # fmt: skip
EXPLAIN_KEYS = {"source", "method", "places", "mistakes", "caution", "sheets", "broken"}
EXPLAINED_IMAGE_KEYS = {
    "index", "path", "label", "answer", "confidence", EXPLAINED_CLASSES, "nearest",
}  # fmt: skip
EXPORT_KEYS = {"run", "formats", "scorecard", "page", "passed"}
VERIFY_KEYS = {"run", "scorecard", "plot", "passed"}
SCORECARD_KEYS = {
    "format", "path", "integers", "size", SPLIT, IMAGES, "agreement", "ties", "largest_difference",
    "accuracy", "accuracy_difference", "speed", "failures",
}  # fmt: skip
PREDICT_KEYS = {
    "path", "label", "confidence", "top", "unknown", OOD_SCORE, "error", ISSUES,
}  # fmt: skip
CSV_COLUMNS = [
    "path", "label", "confidence", "unknown", OOD_SCORE, "error", "label_2", "probability_2",
]  # fmt: skip

# --- Errors: --json prints {"error": {"type", "message"}}
ERROR_TYPES = {2: "RecipeError", 3: "MissingExtra", 4: "DataError", 5: "ModelError",
               6: "TrainingDiverged"}  # fmt: skip

# --- The server
RELOAD_SIGNAL: signal.Signals | None = signal.SIGHUP  # None: the server watches the file itself
RESULT_KEYS = {
    "name", "label", "confidence", "top", "unknown", OOD_SCORE, ISSUES, "seen", "look", "error",
}  # fmt: skip
METRIC_REQUESTS = "tinylens_requests_total"
METRIC_IMAGES = "tinylens_images_total"
METRICS = {
    METRIC_REQUESTS, METRIC_IMAGES, "tinylens_refused_total", "tinylens_model_seconds_total",
    "tinylens_seconds_count", "tinylens_waited_count", "tinylens_batches_count",
    "tinylens_waiting", "tinylens_workers", "tinylens_model_info", "tinylens_confidence_count",
    "tinylens_drift_reference", "tinylens_drift_images",
}  # fmt: skip
