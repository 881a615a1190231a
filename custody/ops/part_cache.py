"""A few opened parts, kept because the next read is likely to want the same ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from custody.crypto.parts import TAG_BYTES
from custody.ops.memory import SecretMemory

#: Opened parts that are kept, and how much memory they may take unless that were below two.
_SLOTS = 4
_SLOTS_BYTES = 64 << 20


@dataclass(slots=True, eq=False)
class _Slot:
    memory: SecretMemory
    ready: bool = False
    users: int = 0


class PartCache:
    """Opened parts by index, at most `slots`; the one that was used longest ago makes room."""

    def __init__(
        self,
        part_size_bytes: int,
        fill: Callable[[int, memoryview], None],
        *,
        slots: int | None = None,
    ) -> None:
        """Take what opens a part into a buffer of part size + 16 bytes, or raises."""
        self._size = part_size_bytes
        self._fill = fill
        self._turn = threading.Condition()
        self._held: OrderedDict[int, _Slot] = OrderedDict()
        self._free: list[_Slot] = []
        self._made = 0
        self.slots = slots or max(2, min(_SLOTS, _SLOTS_BYTES // part_size_bytes))

    @contextmanager
    def part(self, index: int) -> Iterator[memoryview]:
        """Give part ``index``, which stays as it is until the block ends."""
        slot, new = self._take(index)
        if new:
            self._open(index, slot)
        try:
            yield slot.memory.view[: self._size]
        finally:
            with self._turn:
                slot.users -= 1
                self._turn.notify_all()

    def holds(self, index: int) -> bool:
        """Whether part ``index`` is there, at this moment."""
        with self._turn:
            slot = self._held.get(index)
            return slot is not None and slot.ready

    def close(self) -> None:
        """Zero everything, once nobody uses it."""
        with self._turn:
            self._turn.wait_for(lambda: not any(slot.users for slot in self._held.values()))
            slots = [*self._held.values(), *self._free]
            self._held.clear()
            self._free.clear()
        for slot in slots:
            slot.memory.close()

    def _take(self, index: int) -> tuple[_Slot, bool]:
        """Hold the slot of a part; also say whether it is still to be filled, by the caller."""
        # Whoever waits here holds no slot, so somebody always goes on.
        with self._turn:
            while True:
                slot = self._held.get(index)
                if slot is None:
                    slot = self._room()
                    if slot is not None:
                        slot.users, slot.ready = 1, False
                        self._held[index] = slot
                        return slot, True
                elif slot.ready:
                    slot.users += 1
                    self._held.move_to_end(index)
                    return slot, False
                self._turn.wait()

    def _room(self) -> _Slot | None:
        if self._free:
            return self._free.pop()
        if self._made < self.slots:
            slot = _Slot(SecretMemory(self._size + TAG_BYTES))
            self._made += 1
            return slot
        for index, slot in self._held.items():
            if not slot.users:
                del self._held[index]
                return slot
        return None

    def _open(self, index: int, slot: _Slot) -> None:
        try:
            self._fill(index, slot.memory.view)
        except BaseException:
            # Those who wait for this part will try themselves, and get the error themselves.
            with self._turn:
                del self._held[index]
                slot.users = 0
                self._free.append(slot)
                self._turn.notify_all()
            raise
        with self._turn:
            slot.ready = True
            self._turn.notify_all()
