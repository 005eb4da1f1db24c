"""Every network in the table passes every check, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import hashlib

import keras
import pytest

from tinylens import models, testing

pytestmark = pytest.mark.backend

SMALL = {  # options that make a check quick: depth and shape stay, width goes
    "classic": {"widths": [8, 16], "dense": [16], "dropout": 0.1},
    "resnet20": {"width": 8, "blocks": 1},
}
# Starting weights of the full networks for 32×32 RGB, 10 classes, seed 0: the same on every
# backend and machine, since NumPy draws them.
DIGESTS = {"classic": "53971538a714dbd6", "resnet20": "9b41c5945234d15b"}


def test_every_network_has_small_options_and_a_digest():
    assert SMALL.keys() == DIGESTS.keys() == models.BUILDERS.keys()


@pytest.fixture(scope="module", params=models.BUILDERS)
def case(request):
    yield testing.ModelCase(request.param, options=SMALL[request.param])
    keras.backend.clear_session()


@pytest.mark.parametrize("check", testing.MODEL_CHECKS, ids=lambda check: check.__name__)
def test_network_conforms(case, check):
    check(case)


@pytest.mark.parametrize("name", models.BUILDERS)
def test_starting_weights_are_the_same_on_every_backend(name):
    shape = models.NetworkShape((32, 32, 3), 10, mean=(120.0,) * 3, std=(60.0,) * 3, seed=0)
    digest = hashlib.sha256()
    for values in models.build(name, shape, {}).get_weights():
        digest.update(values.tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[name]
