"""Every network in the table passes every check, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import hashlib

import keras
import pytest

import conformance
from tinylens.models.build import BUILDERS, build_network
from tinylens.models.spec import NetworkShape

pytestmark = pytest.mark.backend

SMALL = {  # options that make a check quick: depth and shape stay, width goes
    "backbone": {"architecture": "MobileNetV3Small", "times": 2},
    "classic": {"widths": [8, 16], "dense": [16], "dropout": 0.1},
    "resnet20": {"width": 8, "blocks": 1},
    "whitened": {"widths": [16, 16, 16]},
}
# Starting weights of the full networks for 32×32 RGB, 10 classes, seed 0: the same on every
# backend and machine, since NumPy draws them.
DIGESTS = {
    "backbone": "eff7c1f8223fabc8",
    "classic": "53971538a714dbd6",
    "resnet20": "9b41c5945234d15b",
    "whitened": "b6ec22e6bf1c7019",
}


def test_every_network_has_small_options_and_a_digest():
    assert SMALL.keys() == DIGESTS.keys() == BUILDERS.keys()


NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name == "backbone" else name for name in BUILDERS
]


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    yield conformance.ModelCase(request.param, options=SMALL[request.param])
    keras.backend.clear_session()


@pytest.mark.parametrize("check", conformance.MODEL_CHECKS, ids=lambda check: check.__name__)
def test_network_conforms(case, check):
    check(case)


@pytest.mark.parametrize("name", NAMES)
def test_starting_weights_are_the_same_on_every_backend(name):
    sample = conformance.tiny_dataset((32, 32, 3)).images
    shape = NetworkShape((32, 32, 3), 10, (120.0,) * 3, (60.0,) * 3, 0, sample)
    digest = hashlib.sha256()
    for variable in build_network(name, shape, {}).weights:
        if "whitening" not in variable.path:  # computed: its last digits depend on the processor
            digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[name]
