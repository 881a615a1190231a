"""What every benchmark is given, and the two things most of them need: a model and a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.cast import Actors
from benchmarks.model import Model
from benchmarks.peers import Age, ModelSigning
from benchmarks.room import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A room with a model in it, the actors, and the peers."""

    room: Room
    model: Model
    actors: Actors
    age: Age
    model_signing: ModelSigning
    rounds: int

    @property
    def bundle(self) -> Path:
        """The model sealed: made by the seal benchmark, opened by those after it."""
        return self.room.path / "bundle"

    @property
    def encrypted(self) -> Path:
        """The archive encrypted by age, likewise."""
        return self.room.path / "model.tar.age"

    @property
    def target(self) -> Path:
        """Where a model is opened."""
        return self.room.path / "opened"

    def size_words(self) -> str:
        """Say what is sealed and opened."""
        return f"{self.model.size_bytes / (1 << 30):.2f} GiB in {self.model.files} files"
