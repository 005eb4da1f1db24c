"""The public names, for type checkers: `__init__.py` loads them when they are first used."""

from tinylens.auditing import audit as audit
from tinylens.classifier import Classifier as Classifier
from tinylens.comparison import Comparison as Comparison
from tinylens.comparison import compare as compare
from tinylens.data.dataset import Dataset as Dataset
from tinylens.data.dataset import Splits as Splits
from tinylens.data.sources import load as load
from tinylens.estimator import SmallImageClassifier as SmallImageClassifier
from tinylens.evaluation import evaluate as evaluate
from tinylens.exporting.every import export as export
from tinylens.recipe import Recipe as Recipe
from tinylens.results import Audit as Audit
from tinylens.results import Evaluation as Evaluation
from tinylens.run import Run as Run
from tinylens.training import train as train
from tinylens.verification import verify as verify

__version__: str
