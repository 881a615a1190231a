"""docs/benchmarks.md, written from what was measured: no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.rows import Row, words

_HEAD = """\
# Benchmarks

Written by `make bench` from what it measured; edit `benchmarks/document.py`, not this page.

Every figure of ours is that of the whole program as a user runs it, unless its note says that the
engine alone was measured. Tools take turns on the same bytes in memory (A B C, A B C, …), a first
turn each is not counted, and the median is shown. Before each turn a scratch file as large as the
output is written and deleted, so that no tool pays for memory the machine has yet to get. `ratio`
is ours divided by the peer's: below 1 we take less.

- `seal_*`: `custody publisher seal` with a SoftHSM token reads the model once, hashes every file,
  encrypts, hashes the ciphertext, and signs model and manifest. `model_signing sign key`
  hashes and signs, and writes nothing but the signature. `age -r` encrypts a tar of the same files.
- `open_*`: `custody host open` with a swtpm judges policy, certificates, evidence and approvals,
  opens the shares in the TPM, verifies and decrypts every part and file, and burns the request.
- `verify_model_*`: `custody auditor verify-model` and `model_signing verify key` check the same
  signature, by the reference, of the same files; start-up counts.
- `*_disk_*`: the same, and the engine alone beside `dd`, from a disk to the same disk: what is read
  is not in memory, and what is written has been synced, by `sync` where a tool does not. `dd` only
  copies as many bytes; what it takes of age's time is in the note. It works in pages of 4 KiB where
  ours asks for huge ones, which a virtual disk moves in fewer trips, so it can be the slower one.
- `*_bound_fraction`: the bound is what all cores need for the steps that no byte can do without
  (read, SHA-256 for the model signature, AES-256-GCM, BLAKE3 of ciphertext, write),
  at rates measured between the turns of the same run, each on all cores at once.
- `compression_*_ratio`: what the real weights of a small model take compressed, as a share of what
  they take plain; padding comes after. `*_compressed`: the engine alone, with and without.
- A software TPM answers in a millisecond where a chip takes tens: counts carry over, times do not.

"""


def markdown(rows: Sequence[Row], machine: Mapping[str, str], stream: Mapping[str, float]) -> str:
    """Write the page; ``stream`` is what `make soak` kept of its long stream."""
    about = [("what", "measured with"), *machine.items()]
    heads = ("name", "unit", "ours", "peer", "ratio", "note")
    return (
        _HEAD
        + "## Results\n\n"
        + _table([heads, *map(words, rows)])
        + f"\nA stream of {stream['size_bytes'] / 1e9:.0f} GB (`make soak`), from generated input "
        f"through two workers to nothing, took {stream['seal_seconds']:.0f} s to seal, "
        f"{stream['open_seconds']:.0f} s to open, and {stream['peak_mib']:.0f} MiB at its peak.\n"
        + "\n## Machine and versions\n\n"
        + _table(about)
    )


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(line)} |\n" for line in lines)
    return head + "|---" * len(lines[0]) + "|\n" + "".join(rest)
