"""The rest of an ``open`` that died once its model was there: the burn, and handing out."""

from __future__ import annotations

from pathlib import Path

from custody.cli import _words
from custody.cli._home import moment, open_home
from custody.cli._log import offer
from custody.cli._open import hand_out, place_of
from custody.cli._opening import Opening
from custody.cli._session import stand
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import MAX_STATEMENT_BYTES, Digest, Record
from custody.errors import CustodyError
from custody.formats.policy import Policy
from custody.formats.receipt import Receipt
from custody.ops.folders import read_file, read_statement_file
from custody.ops.open import ended_in, finish, interrupted
from custody.ops.receipts import HostPlace


class FinishedView(Record, frozen=True):
    """What ``open --json`` shows where an earlier run had opened the model."""

    target: str
    receipt: str


def finished(screen: Screen, opening: Opening, request: Digest) -> bool:
    """Do what is left of an opening whose model is there; tell whether there was such a one.

    Nothing is judged, for nothing is opened: a list that has run out since keeps nobody from
    burning.  Raises `Refused` (``host.ended``) for a request that ended in another way.
    """
    home, out = open_home(opening.home, "host"), opening.out
    if home.is_fresh():
        return False
    place = place_of(home)
    entry = place.ledger.left(request)
    if entry is not None and interrupted(entry, out, place):
        finish(entry, open_tpm(opening.tpm), place, now=moment(None))
        screen.say("the model was there already; the interrupted run's request is now burnt")
    elif ended_in(request, out, place):
        screen.say("the model was there already, and its request is burnt")
    else:
        if entry is None and place.receipt_path(request).exists():
            place.find(request)
        return False
    _show(screen, out, place, request)
    hand_out(place, request, opening.receipt, opening.burn_receipt)
    paths = (place.receipt_path(request), place.burn_path(request))
    made = [read_file(path, max_bytes=MAX_STATEMENT_BYTES) for path in paths]
    offer(screen, _policy(opening), opening.log, made)
    return True


def _show(screen: Screen, out: Path, place: HostPlace, request: Digest) -> None:
    receipt = read_statement_file(Receipt, place.receipt_path(request))

    def words() -> None:
        at = _words.time(receipt.predicate.finished_at)
        screen.show(f"opened   by an earlier run, at {at}, into {out}")
        screen.show(f"receipt  {receipt.digest}")

    screen.result(FinishedView(target=str(out), receipt=receipt.digest), words)


def _policy(opening: Opening) -> Policy | None:
    """Return the policy, for the log that it names; None where nothing is to be judged by."""
    try:
        return stand(opening.home, opening.env, "host").situation.trusted.policy
    except CustodyError:
        return None
