"""Muon and Nesterov's momentum against NumPy in float64, on the backend that runs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from tinylens.models.optimizers import ROUNDS, STEEP, Muon, NesterovSGD, build, orthogonal
from tinylens.recipe import OptimizerSection

pytestmark = pytest.mark.backend

SHAPES = {"kernel": (3, 3, 4, 6), "wide": (2, 2, 3, 20), "head": (5, 3), "bias": (7,)}
STEPS = 6


def reference_orthogonal(gradient):
    """Newton-Schulz in float64 on the matrix (outputs, everything else)."""
    matrix = gradient.reshape(-1, gradient.shape[-1]).T
    x = matrix / np.linalg.norm(matrix)
    a, b, c = STEEP
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T.reshape(gradient.shape)


def reference(start, gradients, rates, *, kernel_momentum, momentum, head, bias, muon):
    """Return the weights after all steps, float64."""
    weights = {name: value.astype(np.float64) for name, value in start.items()}
    buffers = {name: np.zeros_like(value) for name, value in weights.items()}
    for step, rate in enumerate(rates):
        for name, weight in weights.items():
            kernel = weight.ndim == 4
            share = kernel_momentum if kernel else momentum
            gradient = gradients[step][name].astype(np.float64)
            buffers[name] = share * buffers[name] + gradient
            ahead = gradient + share * buffers[name]
            if kernel and muon:
                scaled = weight * weight.shape[-1] ** 0.5 / np.linalg.norm(weight)
                weights[name] = scaled - rate * reference_orthogonal(ahead)
            else:
                relative = 1.0 if kernel else head if weight.ndim == 2 else bias
                weights[name] = weight - rate * relative * ahead
    return weights


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(5)
    start = {name: random.normal(size=s).astype(np.float32) for name, s in SHAPES.items()}
    gradients = [
        {name: random.normal(size=s).astype(np.float32) for name, s in SHAPES.items()}
        for _ in range(STEPS)
    ]
    return start, gradients


def taken(optimizer, start, gradients):
    variables = [keras.Variable(value, name=name) for name, value in start.items()]
    for each in gradients:
        optimizer.apply([ops.convert_to_tensor(each[name]) for name in start], variables)
    return dict(zip(start, (ops.convert_to_numpy(v) for v in variables), strict=True))


def falling(spec):
    return [spec.learning_rate * (1 - step / STEPS) for step in range(STEPS)]


@pytest.mark.parametrize("name", ["muon", "sgd"])
def test_steps_under_a_falling_rate_are_those_of_the_reference(name, problem):
    spec = OptimizerSection(
        name=name,
        learning_rate=0.2,
        momentum=0.6,
        vector_momentum=0.85,
        head_lr_multiplier=0.3,
        bias_lr_multiplier=4.0,
        schedule="linear",
    )
    found = taken(build(spec, STEPS), *problem)
    muon = name == "muon"
    expected = reference(
        *problem,
        falling(spec),
        kernel_momentum=0.6,
        momentum=0.85 if muon else 0.6,
        head=0.3,
        bias=4.0,
        muon=muon,
    )
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (1, 1, 4, 32), (3, 3, 24, 64)])
def test_three_rounds_bring_the_singular_values_near_1(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    turned = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(gradient)))
    values = np.linalg.svd(turned.reshape(-1, shape[-1]), compute_uv=False)
    assert values.min() > 0.3 and values.max() < 1.3
    # and the singular vectors stay: the product with the gradient is symmetric
    matrix, before = turned.reshape(-1, shape[-1]), gradient.reshape(-1, shape[-1])
    product = matrix.T @ before
    np.testing.assert_allclose(product, product.T, rtol=1e-3, atol=1e-3 * np.abs(product).max())


def test_in_bfloat16_a_turn_points_the_same_way():
    gradient = np.random.default_rng(0).normal(size=(3, 3, 16, 32)).astype(np.float32)
    exact, rough = (
        ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(gradient), arithmetic)).ravel()
        for arithmetic in ("float32", "bfloat16")
    )
    assert rough.dtype == np.float32
    cosine = exact @ rough / np.linalg.norm(exact) / np.linalg.norm(rough)
    assert cosine > 0.999
    assert build(OptimizerSection(name="muon"), 5, precision="bfloat16").arithmetic == ("bfloat16")


def test_a_kernel_has_the_norm_of_its_outputs_before_each_step():
    kernel = keras.Variable(np.full((3, 3, 2, 5), 7.0, np.float32))
    Muon(learning_rate=0.0).apply([ops.ones((3, 3, 2, 5))], [kernel])
    assert np.linalg.norm(ops.convert_to_numpy(kernel)) == pytest.approx(5**0.5, rel=1e-5)


def test_a_gradient_of_nothing_but_zeros_leaves_a_number():
    kernel = keras.Variable(np.ones((3, 3, 2, 5), np.float32))
    Muon(learning_rate=0.5).apply([ops.zeros((3, 3, 2, 5))], [kernel])
    assert np.isfinite(ops.convert_to_numpy(kernel)).all()


@pytest.mark.parametrize(
    "made", [Muon(momentum=0.3, head_lr_multiplier=2.0), NesterovSGD(bias_lr_multiplier=5.0)]
)
def test_they_survive_their_config(made):
    again = type(made).from_config(made.get_config())
    assert again.get_config() == made.get_config()
