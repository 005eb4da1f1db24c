"""Training loop around `keras.Model.fit`, with checkpoints between steps.

What decides the rest of a training is in `State` and in the arrays of `Trainer.arrays`: weights,
optimizer slots, dropout counters. Order and draws are functions of (seed, epoch, step), so a
training resumed from a checkpoint ends with the weights of one that was never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens import tensorboard
from tinylens.errors import TrainingDiverged
from tinylens.models import augment
from tinylens.models.batching import in_batches
from tinylens.progress import ProgressReporter, StepProgress
from tinylens.run import Arrays, Run
from tinylens.training import imbalance
from tinylens.training.trainer import Trainer

VAL_BATCH = 500  # images a step when nothing is kept for a gradient


def evaluate_on_val(trainer: Trainer) -> dict[str, float]:
    """Return "val_loss" and "val_accuracy" of the (averaged) weights.

    Where uneven classes are made up for also "val_macro_f1" and "val_macro_f1_error", of
    `balance.even_macro_f1`: accuracy hardly asks for the rare ones.
    """
    trained = trainer.network.get_weights()
    trainer.network.set_weights(averaged_weights(trainer))
    n_train = len(trainer.labels) - trainer.n_val
    indices = np.arange(n_train, len(trainer.labels), dtype=np.int32)
    seen = (indices, np.zeros((trainer.n_val, augment.NUM_DRAWS), np.float32))
    labels = trainer.labels[n_train:]
    with trainer.reading_ahead(indices, VAL_BATCH):
        if trainer.recipe.train.balance == "none":
            found = _plain(trainer, seen, labels)
        else:
            logits = trainer.model.predict(**in_batches(seen, batch_size=VAL_BATCH), verbose=0)
            found = _with_macro_f1(trainer, logits, labels)
    trainer.network.set_weights(trained)
    return found


def _plain(
    trainer: Trainer, seen: tuple[Any, Any], labels: NDArray[np.float32]
) -> dict[str, float]:
    batches = in_batches(seen, labels, batch_size=VAL_BATCH)
    figures = trainer.model.evaluate(**batches, verbose=0, return_dict=True)
    return {"val_loss": float(figures["loss"]), "val_accuracy": float(figures["accuracy"])}


def _with_macro_f1(
    trainer: Trainer, logits: NDArray[np.float32], labels: NDArray[np.float32]
) -> dict[str, float]:
    answers, truth = logits.argmax(axis=1), labels.argmax(axis=1)
    score, error = imbalance.even_macro_f1(answers, truth, logits.shape[1])
    return {
        "val_loss": float(keras.ops.convert_to_numpy(trainer.model.loss(labels, logits))),
        "val_accuracy": float((answers == truth).mean()),
        "val_macro_f1": score,
        "val_macro_f1_error": error,
    }


def averaged_weights(trainer: Trainer) -> list[NDArray[Any]]:
    """Return the network's weights, with the running means in place where the recipe has them."""
    weights: list[NDArray[Any]] = trainer.network.get_weights()
    if not trainer.recipe.train.ema:
        return weights
    optimizer = trainer.model.optimizer
    means = dict(
        zip(
            (variable.path for variable in trainer.network.trainable_variables),
            optimizer._model_variables_moving_average,
            strict=True,
        )
    )
    return [
        np.array(means[variable.path]) if variable.path in means else values
        for variable, values in zip(trainer.network.weights, weights, strict=True)
    ]


@dataclass
class State:
    """Where training is, apart from the arrays; goes into every checkpoint.

    Attributes:
        epoch: epochs that are done.
        step: steps that are done in the next one.
        partial: sums over those steps: "loss", "accuracy" and "seconds".
        history: a row an epoch.
        best_epoch: epochs that were done when the best weights were taken; 0 before the first.
        best_accuracy: the highest of val; its highest macro-F1 where classes are balanced.
        best_loss: the lowest val loss so far, for early stopping.
        stale: epochs since the val loss was lowest.
        dropped: epochs that are left out, so that a deadline is kept.
        paces: seconds for a pass over whole images, epoch by epoch, by stage.
        finished: whether the last epoch is done or early stopping has struck.
        seconds: that `fit` has taken so far, over all resumes.
    """

    epoch: int = 0
    step: int = 0
    partial: dict[str, float] = field(default_factory=dict[str, float])
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    stale: int = 0
    dropped: int = 0
    paces: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    finished: bool = False
    seconds: float = 0.0

    @property
    def place(self) -> int:
        """Where in the recipe's course the epoch in hand is: those dropped were passed over."""
        return self.epoch + self.dropped


def fit(
    trainer: Trainer,
    run: Run,
    reporter: ProgressReporter,
    should_stop: Callable[[], bool],
    deadline: float = math.inf,
) -> State:
    """Train to the end from the run's newest checkpoint, or from the start where there is none.

    After every epoch a checkpoint and history.csv are written. When `should_stop` turns true the
    step in hand is finished, a checkpoint written, and the state returned with `finished` false.

    Args:
        trainer: from `tinylens.training.trainer.build`.
        run: its folder gets the checkpoints.
        reporter: told of every step and epoch.
        should_stop: asked after every step.
        deadline: on the clock of `time.monotonic`. Epochs for which it leaves no time are dropped,
            the learning rate falls without them; an epoch amid which it comes is cut short.

    Raises:
        TrainingDiverged: the loss is not a number; the last checkpoint stays.
    """
    state, best = _resume(trainer, run, reporter)
    spec = trainer.recipe.train
    begun = time.monotonic() - state.seconds
    with tensorboard.writer(run.events, state.history) as write_event:
        while not state.finished:
            _drop_epochs(trainer, state, deadline - time.monotonic(), reporter)
            _train_epoch(trainer, state, reporter, should_stop, deadline)
            state.seconds = time.monotonic() - begun
            late = time.monotonic() >= deadline
            if state.step < trainer.steps_of(state.place) and not late:
                _save(trainer, run, state, best)
                return state
            row = _close_epoch(trainer, state)
            _note_pace(trainer, state, row["seconds"])
            if spec.best_weights and _is_best(row, state):
                state.best_epoch = state.epoch
                best = averaged_weights(trainer)
            state.finished = (
                late or state.place >= spec.epochs or 0 < spec.early_stopping <= state.stale
            )
            state.seconds = time.monotonic() - begun
            _save(trainer, run, state, best)
            run.write_history(state.history)
            write_event(row)
            reporter.epoch(row)
    run.write_history(state.history)  # a kill may have come between checkpoint and history
    trainer.network.set_weights(best if best is not None else averaged_weights(trainer))
    return state


def _is_best(row: dict[str, float], state: State) -> bool:
    """Return whether the epoch of that row is the one to keep, and note its score in the state.

    With a few val images of the rare classes the highest macro-F1 is a matter of luck: a later
    epoch, at a lower learning rate, is kept unless it is worse by more than a standard error.
    """
    if "val_macro_f1" in row:
        score, doubt = row["val_macro_f1"], row["val_macro_f1_error"]
    else:
        score, doubt = row.get("val_accuracy", -1.0), 0.0
    better = score > state.best_accuracy - doubt
    state.best_accuracy = max(score, state.best_accuracy)
    return better


def _drop_epochs(
    trainer: Trainer, state: State, seconds_left: float, reporter: ProgressReporter
) -> None:
    """Leave out epochs that the time left has no room for, going by those that were done.

    The schedule goes on at the place where as many epochs are left as will be trained.
    """
    if state.step or math.isinf(seconds_left):
        return
    left = trainer.recipe.train.epochs - state.place
    too_many = trainer.curriculum.without_room(state.place, state.paces, seconds_left)
    if too_many:
        skipped = sum(trainer.steps_of(state.place + number) for number in range(too_many))
        state.dropped += too_many
        trainer.model.optimizer.iterations.assign_add(skipped)
        reporter.say(f"slower than planned: {too_many} of the {left} epochs left are dropped")


def _note_pace(trainer: Trainer, state: State, seconds: float) -> None:
    """Note what the epoch just done took; one that was compiled says little of those to come."""
    place = state.place - 1
    if place > 0 and trainer.model_of(place) is trainer.model_of(place - 1):
        pace = seconds / trainer.curriculum.work(place)
        state.paces.setdefault(trainer.curriculum.stage(place), []).append(pace)


def _train_epoch(
    trainer: Trainer,
    state: State,
    reporter: ProgressReporter,
    should_stop: Callable[[], bool],
    deadline: float,
) -> None:
    """Run the steps of the next epoch that are not done yet, up to the end or a wish to stop."""
    order, share = trainer.order, trainer.curriculum.share(state.place)
    indices = order.indices(state.epoch, share, _losses(trainer, state))
    draws = order.draws(state.epoch, indices)
    watch = _StepWatch(trainer, state, reporter, should_stop, deadline)
    left = trainer.reading_ahead(indices[order.batch_size * state.step :], order.batch_size)
    with contextlib.suppress(_StopRequested), left:
        if trainer.loops:
            _in_few_calls(trainer, state, indices, draws, watch)
        else:
            _in_a_call_a_step(trainer, state, indices, draws, watch)
    watch.add_to(state)


def _in_a_call_a_step(
    trainer: Trainer,
    state: State,
    indices: NDArray[np.int32],
    draws: NDArray[np.float32],
    watch: _StepWatch,
) -> None:
    """Let Keras take the steps of the epoch that are not done yet."""
    done = trainer.order.batch_size * state.step
    indices, draws = indices[done:], draws[done:]
    weights = None if trainer.weights is None else trainer.weights[indices]
    trainer.model_of(state.place).fit(
        **in_batches(
            (indices, draws),
            trainer.labels[indices],
            weights,
            batch_size=trainer.order.batch_size,
        ),
        shuffle=False,
        verbose=0,
        initial_epoch=state.epoch,
        epochs=state.epoch + 1,
        callbacks=[watch],
    )


def _in_few_calls(
    trainer: Trainer,
    state: State,
    indices: NDArray[np.int32],
    draws: NDArray[np.float32],
    watch: _StepWatch,
) -> None:
    """Take the steps of the epoch that are not done yet, many in one compiled call."""
    order, steps = trainer.order, trainer.steps_of(state.place)
    rows = {"indices": indices, "draws": draws, "labels": trainer.labels[indices]}
    if trainer.weights is not None:
        rows["weights"] = trainer.weights[indices]
    batches = {}
    for name, values in rows.items():
        # a shorter epoch gets the shape of a whole one, so that nothing is compiled anew for it
        whole = np.zeros((order.steps() * order.batch_size, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
        batches[name] = whole.reshape(order.steps(), order.batch_size, *values.shape[1:])
    loop = trainer.loops[trainer.curriculum.is_early(state.place)]
    loop.run(batches, range(state.step, steps), watch.look)


def _losses(trainer: Trainer, state: State) -> NDArray[np.float32] | None:
    """Return the losses that the images of the epoch in hand are chosen by, if they are."""
    if trainer.memory is None:
        return None
    if state.step == 0:
        trainer.memory.begin_epoch()
    return trainer.memory.of_epoch() if trainer.curriculum.is_hard(state.place) else None


class _StopRequested(Exception):
    """Leaves `fit` after a finished step."""


class _StepWatch(keras.callbacks.Callback):
    """Looks at every step: tells the reporter, stops on a loss that is no number or on a wish."""

    def __init__(
        self,
        trainer: Trainer,
        state: State,
        reporter: ProgressReporter,
        should_stop: Callable[[], bool],
        deadline: float,
    ) -> None:
        super().__init__()
        self.trainer, self.state, self.reporter = trainer, state, reporter
        self.should_stop, self.deadline = should_stop, deadline
        self.started = time.monotonic()
        self.steps = 0
        self.loss = self.accuracy = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the running means of this call of `fit`, which start at its first step."""
        logs = logs or {}
        self.look(batch + 1, float(logs["loss"]), float(logs["accuracy"]))

    def look(self, steps: int, loss: float, accuracy: float) -> None:
        """Keep the means over the steps that were done since training was started or resumed."""
        self.steps, self.loss, self.accuracy = steps, loss, accuracy
        if not math.isfinite(self.loss):
            self._refuse()
        self.reporter.step(self._progress())
        if self.should_stop() or time.monotonic() >= self.deadline:
            raise _StopRequested

    def add_to(self, state: State) -> None:
        """Add the steps of this call to the sums of the epoch."""
        seconds = time.monotonic() - self.started
        for key, value in (("loss", self.loss), ("accuracy", self.accuracy)):
            state.partial[key] = state.partial.get(key, 0.0) + value * self.steps
        state.partial["seconds"] = state.partial.get("seconds", 0.0) + seconds
        state.step += self.steps

    def _progress(self) -> StepProgress:
        order = self.trainer.order
        return StepProgress(
            epoch=self.state.epoch,
            epochs=self.trainer.recipe.train.epochs - self.state.dropped,
            step=self.state.step + self.steps,
            steps=self.trainer.steps_of(self.state.place),
            loss=self.loss,
            accuracy=self.accuracy,
            images_per_second=self.steps * order.batch_size / (time.monotonic() - self.started),
        )

    def _refuse(self) -> None:
        if keras.backend.backend() == "jax" and not self.trainer.loops:
            # within `fit` its optimizer has no values
            self.model.jax_state_sync()
        before = sum(map(self.trainer.steps_of, range(self.state.epoch)))
        step = before + self.state.step + self.steps
        rate = float(keras.ops.convert_to_numpy(self.trainer.model.optimizer.learning_rate))
        raise TrainingDiverged(
            f"the loss stopped being a number by step {step:,} (epoch {self.state.epoch + 1}, "
            f"learning rate {rate:.3g}); the state after epoch {self.state.epoch} is kept; "
            f"train again with a lower rate: --set optimizer.learning_rate={rate / 10:.1g}"
        )


def _close_epoch(trainer: Trainer, state: State) -> dict[str, float]:
    """Judge on val, write the epoch's row into the state and count it as done."""
    steps, seconds = state.step, state.partial["seconds"]  # fewer steps where it was cut short
    row = {
        "epoch": float(state.epoch + 1),
        "learning_rate": float(keras.ops.convert_to_numpy(trainer.model.optimizer.learning_rate)),
        "loss": state.partial["loss"] / steps,
        "accuracy": state.partial["accuracy"] / steps,
        **(evaluate_on_val(trainer) if _looks_at_val(trainer, state) else {}),
        "images_per_second": steps * trainer.order.batch_size / seconds,
        "seconds": seconds,
    }
    state.history.append(row)
    state.epoch, state.step, state.partial = state.epoch + 1, 0, {}
    if "val_loss" in row:  # without a val split nothing is chosen, so nothing stops early
        state.stale = 0 if row["val_loss"] < state.best_loss else state.stale + 1
        state.best_loss = min(state.best_loss, row["val_loss"])
    return row


def _looks_at_val(trainer: Trainer, state: State) -> bool:
    """Return whether the epoch in hand ends with a look at val, where there is one."""
    spec, done = trainer.recipe.train, state.place + 1
    return trainer.n_val > 0 and (done % spec.val_every == 0 or done == spec.epochs)


def _save(trainer: Trainer, run: Run, state: State, best: list[NDArray[Any]] | None) -> None:
    arrays: Arrays = {
        name: keras.ops.convert_to_numpy(value) for name, value in trainer.arrays().items()
    }
    for number, values in enumerate(best or []):
        arrays[f"best/{number:04d}"] = values
    run.write_checkpoint(arrays, asdict(state))


def _resume(
    trainer: Trainer, run: Run, reporter: ProgressReporter
) -> tuple[State, list[NDArray[Any]] | None]:
    """Put the newest checkpoint into the trainer and return its state and best weights."""
    checkpoint = run.read_checkpoint(reporter.say)
    if checkpoint is None:
        return State(), None
    arrays, state = checkpoint
    for name, variable in trainer.arrays().items():
        variable.assign(arrays[name])
    best = [arrays[name] for name in sorted(arrays) if name.startswith("best/")]
    return State(**state), best or None
