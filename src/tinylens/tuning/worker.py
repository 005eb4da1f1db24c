"""A process that tries recipes: `python -m tinylens.tuning.worker`, asked in lines of JSON.

It holds train and val, and nothing of test. It ends when its stdin does, so that none is left
behind by a search that was killed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinylens.silent import Silent

if TYPE_CHECKING:
    from tinylens.data.dataset import Splits
    from tinylens.planning import Pace
    from tinylens.recipe import Recipe

Tell = Callable[[Mapping[str, Any]], None]

LOOKS = 4  # at val on the way, at which a trial may be given up


def main() -> None:
    """Take commands until there are no more."""
    settings = json.loads(sys.argv[1])
    use_processors(settings["processors"])
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    inbox = _Inbox()
    bench = Bench(settings, tell, inbox.given_up)
    tell({"event": "ready"})
    while True:
        command = inbox.next()
        tell({"name": command["name"], **bench.answer(command)})


def use_processors(numbers: list[int]) -> None:
    """Keep to these processors, and start no more threads than there are of them."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(len(numbers))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, numbers)


class _Inbox:
    """Commands from stdin, read by a thread, so that a training hears that it is given up."""

    def __init__(self) -> None:
        self._commands: list[dict[str, Any]] = []
        self._given_up: set[str] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Return the next training that is asked for."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands)
            return self._commands.pop(0)

    def given_up(self, name: str) -> bool:
        """Return whether a training is not to go on."""
        return name in self._given_up

    def _listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            with self._changed:
                if command["do"] == "give up":
                    self._given_up.add(command["name"])
                else:
                    self._commands.append(command)
                self._changed.notify()
        os._exit(0)  # whoever asked is gone


class Bench:
    """Trains recipes on train and judges them on val."""

    def __init__(
        self, settings: Mapping[str, Any], tell: Tell, given_up: Callable[[str], bool]
    ) -> None:
        from tinylens import backend as backends
        from tinylens import training
        from tinylens.tuning.folder import Folder

        backends.activate(settings["backend"])
        training.make_deterministic(settings["backend"])
        self.folder = Folder(Path(settings["folder"]))
        self.precision: str = settings["precision"]
        self.tell, self.given_up = tell, given_up
        self.data: Splits = self.folder.read_data()
        self.paces: dict[str, Pace] = {}

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return what came of a training: "done", "pruned" or "failed", and what is known of it."""
        from tinylens.errors import TinylensError
        from tinylens.recipe import Recipe

        scratch = self.folder.scratch / command["name"]
        try:
            return self._train(Recipe.from_dict(command["recipe"]), command, scratch)
        except TinylensError as error:
            kind = type(error).__name__
            return {"event": "failed", "kind": kind, "message": str(error)}
        except Exception as error:  # a fault of ours or of a library: the search goes on without it
            traceback.print_exc()
            return {"event": "failed", "kind": type(error).__name__, "message": str(error)}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _train(self, recipe: Recipe, command: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
        from tinylens import compiling, fitting
        from tinylens.run import Run

        begun = time.monotonic()
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        compiling.forget()
        spec = self._of_length(recipe, command["seconds"])
        trainer = compiling.build(self.data, spec, self.precision)
        name = command["name"]
        watcher = _Telling(name, spec.train.epochs, self.tell)
        state = fitting.fit(trainer, Run(scratch), watcher, lambda: self.given_up(name))
        if not state.finished:
            return {"event": "pruned"}
        right = self._right_on_val(trainer)
        return {
            "event": "done",
            "value": float(right.mean()),
            "right": base64.b64encode(_packed(right)).decode("ascii"),
            "passes": round(spec.train.epochs * spec.train.epoch_share, 3),
            "seconds": round(time.monotonic() - begun, 2),
            "history": [
                {key: row[key] for key in ("epoch", "loss", "val_accuracy") if key in row}
                for row in state.history
            ],
        }

    def _of_length(self, recipe: Recipe, seconds: float | None) -> Recipe:
        """Return the recipe with as many epochs as the seconds allow, and looks at val among them.

        Its own epochs where no time was given.
        """
        from tinylens import planning

        if seconds is not None:
            key = json.dumps([recipe.model.model_dump(), recipe.train.batch_size], sort_keys=True)
            if key not in self.paces:
                self.paces[key] = planning.probe(self.data, recipe, self.precision)
            recipe = planning.lengthened(recipe, self.data, self.paces[key], seconds, LOOKS)
        often = max(recipe.train.epochs // LOOKS, 1)
        return recipe.override({"train.val_every": min(recipe.train.val_every, often)})

    def _right_on_val(self, trainer: Any) -> Any:
        """Return which pictures of val what would ship answers right; bool, (n_val,)."""
        from tinylens import finishing, models

        val = self.data.val
        assert val is not None
        shipped = models.ship(trainer.network, views=trainer.recipe.model.views)
        return finishing.predict(shipped, val.images).argmax(axis=1) == val.labels


class _Telling(Silent):
    """A watcher that tells of epochs alone."""

    def __init__(self, name: str, epochs: int, tell: Tell) -> None:
        self.name, self.epochs, self.tell = name, epochs, tell

    def epoch(self, row: dict[str, float]) -> None:
        """Tell of an epoch."""
        told = {"event": "epoch", "name": self.name, "epoch": row["epoch"], "epochs": self.epochs}
        self.tell({**told, "value": row.get("val_accuracy")})


def _packed(right: Any) -> bytes:
    import numpy as np

    return np.packbits(right).tobytes()


if __name__ == "__main__":
    main()
