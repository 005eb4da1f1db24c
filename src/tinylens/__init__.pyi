"""The public names, for type checkers: `__init__.py` loads them when they are first used."""

from tinylens.auditing.audit import audit as audit
from tinylens.data.convert import convert as convert
from tinylens.data.corrections import apply_fixes as apply_fixes
from tinylens.data.dataset import Dataset as Dataset
from tinylens.data.dataset import Splits as Splits
from tinylens.data.load import load as load
from tinylens.evaluation.compare import Comparison as Comparison
from tinylens.evaluation.compare import compare as compare
from tinylens.evaluation.evaluate import evaluate as evaluate
from tinylens.evaluation.robustness import robustness as robustness
from tinylens.explaining.explain import explain as explain
from tinylens.exporting.export import export as export
from tinylens.exporting.verify import verify as verify
from tinylens.inference.batch_predict import predict as predict
from tinylens.inference.classifier import Classifier as Classifier
from tinylens.recipe import Recipe as Recipe
from tinylens.reporting.write import report as report
from tinylens.results import Audit as Audit
from tinylens.results import Evaluation as Evaluation
from tinylens.run import Run as Run
from tinylens.training.estimator import SmallImageClassifier as SmallImageClassifier
from tinylens.training.learning_curve import learning_curve as learning_curve
from tinylens.training.train import train as train

__version__: str
