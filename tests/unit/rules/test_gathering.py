"""Who may sign what is collected."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

from custody.formats.burn import Burn
from custody.formats.case import Documents
from custody.formats.envelope import Statement
from custody.formats.forgotten import Forgotten
from custody.formats.keyrequest import KeyReceipt, KeyRequest
from custody.formats.logged import Logged
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.rules import gathering


def test_every_kind_of_statement_has_its_signers() -> None:
    """Nothing is collected for the signature of somebody who has no say in it: each kind that a
    case has is of one role, or is judged by its host's key or its log's.
    """
    hints = get_type_hints(Documents)
    held = [get_args(hints[field.name])[0] for field in fields(Documents)]
    kinds = {get_args(kind)[0] for kind in held if get_origin(kind) is Statement}
    own = {Request, Receipt, Burn, Forgotten, Logged, KeyRequest, KeyReceipt}
    assert kinds == gathering.SIGNERS.keys() | own
    assert not gathering.SIGNERS.keys() & own
