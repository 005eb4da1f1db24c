"""The order of images and their draws are functions of seed and epoch alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from tinylens.models import augment
from tinylens.training import imbalance
from tinylens.training.dataset_layer import UNSEEN, LossMemory, Order, PriorLogits, ResidentImages

ORDERS = st.builds(
    Order,
    count=st.integers(1, 200),
    batch_size=st.integers(1, 250),
    seed=st.integers(0, 2**31 - 1),
    flip=st.sampled_from(["none", "random", "alternating"]),
)


@given(ORDERS, st.integers(0, 1000))
def test_an_epoch_sees_each_image_at_most_once_in_full_batches(order, epoch):
    indices = order.indices(epoch)
    assert indices.dtype == np.int32
    assert len(set(indices.tolist())) == len(indices)
    assert set(indices.tolist()) <= set(range(order.count))
    expected = min(order.count, order.steps() * order.batch_size)
    assert len(indices) == expected
    assert order.count - expected < order.batch_size


@given(ORDERS, st.integers(0, 1000))
def test_order_and_draws_are_the_same_whenever_they_are_asked_for(order, epoch):
    other = Order(order.count, order.batch_size, order.seed, order.flip)
    other.indices(epoch + 1)
    assert np.array_equal(order.indices(epoch), other.indices(epoch))
    assert np.array_equal(
        order.draws(epoch, order.indices(epoch)), other.draws(epoch, other.indices(epoch))
    )


@given(ORDERS, st.integers(0, 1000))
def test_draws_are_a_row_a_image_in_0_to_1(order, epoch):
    draws = order.draws(epoch, order.indices(epoch))
    assert draws.dtype == np.float32
    assert draws.shape == (len(order.indices(epoch)), augment.NUM_DRAWS)
    assert draws.min() >= 0
    assert draws.max() < 1


def test_epochs_and_seeds_have_orders_and_draws_of_their_own():
    orders = [Order(100, 10, seed) for seed in (0, 1)]
    seen = [tuple(order.indices(epoch)) for order in orders for epoch in (0, 1)]
    assert len(set(seen)) == 4
    drawn = [
        order.draws(epoch, order.indices(epoch)).tobytes() for order in orders for epoch in (0, 1)
    ]
    assert len(set(drawn)) == 4


def test_the_order_is_pinned():
    """A change here means that half-done runs of the version before cannot be continued."""
    assert Order(8, 4, seed=3).indices(2).tolist() == [1, 7, 4, 0, 2, 6, 3, 5]


def test_images_left_out_of_one_epoch_come_in_another():
    order = Order(count=10, batch_size=8, seed=0)
    seen = set().union(*(order.indices(epoch).tolist() for epoch in range(10)))
    assert seen == set(range(10))


def test_a_set_smaller_than_a_batch_is_one_step():
    order = Order(count=3, batch_size=128, seed=0)
    assert order.steps() == 1
    assert sorted(order.indices(0)) == [0, 1, 2]


@given(st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_alternating_flips_show_every_image_its_other_side_an_epoch_later(seed, epoch):
    order = Order(20, 10, seed, "alternating")
    sides = []
    for each in (epoch, epoch + 1, epoch + 2):
        mirrored = order.draws(each, order.indices(each))[:, augment.FLIP] >= 0.5
        sides.append(dict(zip(order.indices(each).tolist(), mirrored.tolist(), strict=True)))
    assert all(sides[1][image] is not side for image, side in sides[0].items())
    assert sides[2] == sides[0]


def test_alternating_flips_start_on_either_side():
    sides = Order(1000, 1000, 0, "alternating")
    mirrored = sides.draws(0, sides.indices(0))[:, augment.FLIP] >= 0.5
    assert 450 < mirrored.sum() < 550


@pytest.mark.backend
def test_the_layer_gives_the_images_of_its_indices_as_uint8():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    layer = ResidentImages(images)
    found = ops.convert_to_numpy(layer(np.array([3, 0, 3], np.int32)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, images[[3, 0, 3]])
    assert layer.trainable_variables == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others copy or share anyway")
def test_on_a_processor_the_images_stay_in_the_file_that_they_came_in(tmp_path):
    path = tmp_path / "images.npy"
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    np.save(path, images)
    layer = ResidentImages(np.load(path, mmap_mode="r"))
    assert layer.variables == []
    indices = keras.Input((), dtype="int32")
    model = keras.Model(indices, layer(indices))
    chosen = np.arange(49, -1, -1, dtype=np.int32)
    assert np.array_equal(model.predict(chosen, batch_size=16, verbose=0), images[chosen])


# --- hard images


@given(ORDERS, st.integers(0, 50), st.floats(0.05, 1.0))
def test_a_share_of_the_images_makes_an_epoch_shorter(order, epoch, share):
    indices = order.indices(epoch, share)
    assert len(indices) == min(order.steps(share) * order.batch_size, order.count)
    assert len(set(indices.tolist())) == len(indices)


def test_the_images_with_the_largest_losses_are_taken_in_the_epochs_own_order():
    order = Order(100, 10, seed=3)
    losses = np.random.default_rng(0).random(100).astype(np.float32)
    found = order.indices(2, 0.3, losses)
    assert set(found) == set(np.argsort(-losses)[:30])
    whole = order.indices(2).tolist()
    assert [whole.index(each) for each in found] == sorted(whole.index(each) for each in found)


@pytest.mark.backend
def test_losses_are_remembered_where_they_were_seen_and_only_in_training():
    memory = LossMemory(np.array([0, 1, 1, 0]))
    logits = np.array([[2.0, 0.0], [0.5, 0.5]], np.float32)
    indices = np.array([3, 1], np.int32)
    memory(ops.convert_to_tensor(indices), ops.convert_to_tensor(logits), training=False)
    assert (memory.begin_epoch() == UNSEEN).all()
    memory(ops.convert_to_tensor(indices), ops.convert_to_tensor(logits), training=True)
    assert (memory.of_epoch() == UNSEEN).all()  # until the next epoch begins
    expected = [UNSEEN, np.log(2), UNSEEN, np.log(1 + np.exp(-2))]
    np.testing.assert_allclose(memory.begin_epoch(), expected, rtol=1e-5)


# --- rare classes shown more often

UNEVEN = np.repeat(np.arange(4), [60, 25, 10, 1])


@given(
    st.integers(1, 120), st.integers(0, 2**31 - 1), st.integers(0, 50), st.sampled_from([1.0, 0.4])
)
def test_sampling_shows_every_class_as_often_as_its_quota_says(batch_size, seed, epoch, share):
    order = Order(len(UNEVEN), min(batch_size, len(UNEVEN)), seed, labels=UNEVEN)
    indices = order.indices(epoch, share)
    assert indices.dtype == np.int32
    assert len(indices) == order.steps(share) * order.batch_size
    shown = np.bincount(UNEVEN[indices], minlength=4)
    assert shown.tolist() == imbalance.quotas(np.bincount(UNEVEN), len(indices)).tolist()
    for label in range(4):  # no image of a class twice more often than another
        of_each = np.bincount(indices, minlength=len(UNEVEN))[label == UNEVEN]
        assert np.ptp(of_each) <= 1
    again = Order(order.count, order.batch_size, seed, labels=UNEVEN)
    assert np.array_equal(again.indices(epoch, share), indices)


def test_sampling_of_hard_images_takes_those_with_the_largest_losses_of_each_class():
    order = Order(len(UNEVEN), 16, seed=0, labels=UNEVEN)
    losses = np.random.default_rng(0).random(len(UNEVEN), np.float32)
    indices = order.indices(3, share=0.5, losses=losses)
    quota = imbalance.quotas(np.bincount(UNEVEN), len(indices))[0]
    hardest = np.argsort(-losses[:60])[:quota]
    assert set(indices[UNEVEN[indices] == 0].tolist()) == set(hardest.tolist())


@pytest.mark.backend
def test_priors_are_added_in_training_alone():
    layer = PriorLogits(np.array([-1, -2], np.float32))
    logits = np.array([[1, 1], [0, 3]], np.float32)
    trained = ops.convert_to_numpy(layer(logits, training=True))
    assert trained.tolist() == [[0, -1], [-1, 1]]
    assert ops.convert_to_numpy(layer(logits, training=False)).tolist() == logits.tolist()
