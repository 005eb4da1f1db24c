"""The layers of our own against NumPy, and against Keras where Keras has the same one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from tinylens.models.layers import (
    CountedDropout,
    FusedBatchNorm,
    HostHeUniform,
    SmallMapConv2D,
    plain,
    uniform_hash,
)

pytestmark = pytest.mark.backend

INT32 = st.integers(-(2**31), 2**31 - 1)


def mixed(x):
    """lowbias32 in 64-bit arithmetic that is cut to 32 bits, so nothing ever wraps."""
    x = np.asarray(x, np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    x = (x ^ (x >> np.uint64(16))) * np.uint64(0x7FEB352D) & mask
    x = (x ^ (x >> np.uint64(15))) * np.uint64(0x846CA68B) & mask
    return x ^ (x >> np.uint64(16))


def reference_hash(position, step, seed):
    start = mixed((step + (seed * 0x9E3779B9 + 0x7F4A7C15) % 2**31) % 2**32)
    position = np.asarray(position, np.int64) % 2**32
    return (mixed((mixed(position) + start) % np.uint64(2**32)) >> np.uint64(8)) / 2**24


def hashed(position, step, seed):
    tensor = ops.convert_to_tensor(np.asarray(position, np.int32))
    return ops.convert_to_numpy(uniform_hash(tensor, ops.convert_to_tensor(step, "int32"), seed))


def dropped(inputs, rate, seed, steps):
    """Masked inputs of each of `steps` training steps."""
    layer = CountedDropout(rate, seed)
    tensor = ops.convert_to_tensor(inputs)
    return [ops.convert_to_numpy(layer(tensor, training=True)) for _ in range(steps)]


@given(st.lists(INT32, min_size=8, max_size=8), INT32, st.integers(0, 2**40))
def test_hash_is_the_reference_bit_for_bit(position, step, seed):
    found = hashed(position, step, seed)
    assert found.dtype == np.float32
    assert np.array_equal(found, reference_hash(position, step, seed).astype(np.float32))


def test_hash_is_pinned():
    """A change here changes every dropout mask: a resumed run would end with other weights."""
    numbers = hashed([0, 1, 2, 1000], 5, 7) * 2**24
    assert numbers.astype(int).tolist() == [197200, 16166957, 14455879, 4594488]


@pytest.mark.parametrize(("step", "seed"), [(0, 0), (1, 0), (0, 1), (100_000, 7)])
def test_hash_is_uniform(step, seed):
    numbers = hashed(np.arange(100_000), step, seed)
    assert 0 <= numbers.min() < numbers.max() < 1
    counts = np.bincount((numbers * 100).astype(int), minlength=100)
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert 60 < chi_squared < 150  # 99 degrees of freedom: 99.9 % lie within


def test_hashes_of_neighbouring_steps_seeds_and_places_are_unrelated():
    place, numbers = np.arange(50_000), hashed(np.arange(50_000), 5, 3)
    others = [hashed(place, 6, 3), hashed(place, 5, 4), hashed(place + 1, 5, 3)]
    for other in others:
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.02


def test_dropout_is_the_reference_at_every_step():
    inputs = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    for step, found in enumerate(dropped(inputs, 0.3, seed=4, steps=4)):
        keep = reference_hash(np.arange(inputs.size), step, 4).astype(np.float32) >= 0.3
        expected = np.where(keep.reshape(inputs.shape), inputs / np.float32(0.7), 0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_dropout_keeps_the_mean_and_drops_its_share():
    found = dropped(np.ones((100, 1000), np.float32), 0.25, seed=1, steps=1)[0]
    assert np.mean(found == 0) == pytest.approx(0.25, abs=0.005)
    assert found.mean() == pytest.approx(1, abs=0.01)


def test_dropout_gives_its_inputs_back_outside_training_and_counts_no_step():
    layer = CountedDropout(0.5, seed=0)
    inputs = ops.ones((2, 3))
    assert np.array_equal(ops.convert_to_numpy(layer(inputs)), np.ones((2, 3)))
    assert int(layer.counter) == 0


def test_dropout_of_rate_0_counts_no_step():
    layer = CountedDropout(0.0, seed=0)
    layer(ops.ones((2, 3)), training=True)
    assert int(layer.counter) == 0


def test_dropout_survives_its_config():
    layer = CountedDropout.from_config(CountedDropout(0.2, seed=9, name="x").get_config())
    assert (layer.rate, layer.seed, layer.name) == (0.2, 9, "x")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fused_batch_norm_is_batch_normalization(policy):
    random = np.random.default_rng(0)
    ours = FusedBatchNorm(momentum=0.9, epsilon=1e-5, dtype=policy)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=policy)
    for layer in (ours, theirs):
        layer.build((None, 6, 5, 3))
        layer.gamma.assign([0.5, 1.5, 2.0])
        layer.beta.assign([0.0, -1.0, 1.0])
    tolerance = 2e-5 if policy == "float32" else 0.05  # bfloat16 keeps 8 bits
    for _ in range(3):
        batch = random.normal(3, 2, (8, 6, 5, 3)).astype(np.float32)
        found, expected = (layer(batch, training=True) for layer in (ours, theirs))
        assert keras.backend.standardize_dtype(found.dtype) == ours.compute_dtype
        np.testing.assert_allclose(as_float(found), as_float(expected), atol=tolerance)
    # statistics are float32 in both, of inputs that autocast has rounded alike
    np.testing.assert_allclose(as_float(ours.moving_mean), as_float(theirs.moving_mean), rtol=1e-3)
    np.testing.assert_allclose(
        as_float(ours.moving_variance), as_float(theirs.moving_variance), rtol=1e-3
    )
    np.testing.assert_allclose(as_float(ours(batch)), as_float(theirs(batch)), atol=tolerance)


def test_fused_batch_norm_keeps_the_biased_variance():
    layer = FusedBatchNorm(momentum=0.0)
    batch = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32)
    layer(batch, training=True)
    np.testing.assert_allclose(
        as_float(layer.moving_variance), batch.var(axis=(0, 1, 2), ddof=0), rtol=1e-5
    )


@pytest.mark.parametrize("layer_class", [FusedBatchNorm, keras.layers.BatchNormalization])
def test_batch_norm_learns_by_the_gradient_of_its_formula(layer_class):
    """One step of plain gradient descent on sum(y · target), against finite differences."""
    random = np.random.default_rng(1)
    batch = random.normal(1, 2, (4, 3, 3, 2)).astype(np.float32)
    target = random.normal(size=batch.shape).astype(np.float32)
    inputs = keras.Input((3, 3, 2))
    scaled = keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones")(inputs)
    model = keras.Model(inputs, layer_class(epsilon=1e-3)(scaled))
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=lambda target, answer: ops.sum(answer * target, axis=(1, 2, 3)),
        jit_compile=False,
    )
    before = [variable.numpy() for variable in model.trainable_variables]
    model.fit(batch, target, batch_size=4, epochs=1, shuffle=False, verbose=0)
    kernel, gamma, beta = (
        old - variable.numpy()
        for old, variable in zip(before, model.trainable_variables, strict=True)
    )
    normal = (batch - batch.mean((0, 1, 2))) / np.sqrt(batch.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(gamma, (normal * target).sum((0, 1, 2)) / 4, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(beta, target.sum((0, 1, 2)) / 4, rtol=1e-3, atol=1e-4)
    expected = [scale_gradient(batch, target, channel) / 4 for channel in range(2)]
    np.testing.assert_allclose(kernel.ravel(), expected, rtol=0.05, atol=2e-3)


def scale_gradient(batch, target, channel, change=1e-4):
    def loss(scale):
        x = batch[..., channel].astype(np.float64) * scale
        return ((x - x.mean()) / np.sqrt(x.var() + 1e-3) * target[..., channel]).sum()

    return (loss(1 + change) - loss(1 - change)) / (2 * change)


def test_starting_weights_have_the_spread_of_he():
    values = as_float(HostHeUniform((3, 1))((3, 3, 64, 128)))
    assert values.std() == pytest.approx((2 / (3 * 3 * 64)) ** 0.5, rel=0.01)
    assert abs(values.mean()) < 1e-3


def test_starting_weights_of_two_layers_differ():
    one, other = (as_float(HostHeUniform((0, number))((4, 4))) for number in (0, 1))
    assert not np.array_equal(one, other)


def gradients_of(layer, images, upstream):
    """Of the sum of outputs times `upstream`: by inputs and by kernel, and the outputs."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        pytest.skip("elsewhere it is Keras's own layer")
    import tensorflow as tf

    inputs = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        total = tf.reduce_sum(tf.cast(outputs, "float32") * upstream)
    by_inputs, by_kernel = tape.gradient(total, [inputs, layer.kernel.value])
    return [np.array(tf.cast(each, "float32")) for each in (outputs, by_inputs, by_kernel)]


@pytest.mark.parametrize(
    ("shape", "size"),
    [((5, 7, 7, 6), 3), ((4, 3, 3, 8), 3), ((1, 6, 8, 3), 3), ((3, 5, 4, 2), 2), ((2, 1, 1, 4), 3)],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_small_maps_have_the_gradients_of_any_convolution(shape, size, policy):
    random = np.random.default_rng(0)
    images = random.normal(size=shape).astype(np.float32)
    upstream = random.normal(size=(*shape[:3], 7)).astype(np.float32)
    options = {"padding": "same", "use_bias": False, "dtype": policy}
    own, plain_one = (kind(7, size, **options) for kind in (SmallMapConv2D, keras.layers.Conv2D))
    for layer in (own, plain_one):
        layer.build(shape)
    plain_one.set_weights(own.get_weights())
    found = gradients_of(own, images, upstream)
    expected = gradients_of(plain_one, images, upstream)
    tolerance = 1e-5 if policy == "float32" else 0.02  # bfloat16 has 8 bits
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


def test_small_map_convolutions_ship_as_keras_own():
    layer = SmallMapConv2D(4, 3, padding="same", name="c")
    assert type(plain(layer)) is keras.layers.Conv2D and plain(layer).name == "c"


def test_plain_layers_are_float32_keras_layers_of_the_same_name():
    for layer in (
        FusedBatchNorm(epsilon=1e-5, name="norm", dtype="mixed_bfloat16"),
        CountedDropout(0.3, seed=1, name="drop", dtype="mixed_bfloat16"),
        keras.layers.Conv2D(4, 3, kernel_initializer=HostHeUniform((0,)), name="convolution"),
    ):
        copy = plain(layer)
        assert type(copy).__module__.startswith("keras.")
        assert (copy.name, copy.dtype_policy.name) == (layer.name, "float32")
    assert plain(FusedBatchNorm(epsilon=1e-5)).epsilon == 1e-5
    assert plain(CountedDropout(0.3, seed=1)).rate == 0.3


def as_float(tensor):
    return ops.convert_to_numpy(ops.cast(ops.convert_to_tensor(tensor), "float32"))
