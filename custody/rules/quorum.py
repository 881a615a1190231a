"""The quorum tree seen from the two sides that enforce it: shares and signatures."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from custody.crypto.quorum import Leaf, Node, Person, Shortfall, Threshold, leaves, missing
from custody.encoding import KeyId
from custody.formats.policy import Policy, SigningKey


def policy_signed_bytes(terms: bytes) -> bytes:
    """Return what TPM2_PolicySigned has officers and logs sign: expiration 0, no cpHash, terms.

    TPM 2.0 part 3, 23.3.  It cannot be confused with a statement, whose PAE begins "DSSEv1", nor
    with a note, which holds no zero bytes.
    """
    return bytes(4) + terms


def officer_keys(policy: Policy, principal: str) -> tuple[SigningKey, ...]:
    """Return an officer's signing keys in key id order."""
    person = policy.principal(principal)
    keys = [key for key in person.keys if isinstance(key, SigningKey)] if person else []
    return tuple(sorted(keys, key=lambda key: key.key_id))


#: Where a log's policy puts the quorum's tree and the log in H's: all of the two, in this order.
_QUORUM, LOG_PATH = "0", "1"


def signing_tree(policy: Policy) -> tuple[Node, Mapping[str, bytes]]:
    """Return the tree that H's policy is made of, and the SPKI at each of its leaves.

    It is the policy's tree, but an officer with several tokens becomes a 1-of-n node over his
    keys: any of them signs for his one leaf.  Where releases are logged, it is all of two: that
    tree, and the log's key at `LOG_PATH`.
    """
    spkis: dict[str, bytes] = {}

    def grow(node: Node, path: str) -> Node:
        if isinstance(node, Threshold):
            children = tuple(
                grow(child, _below(path, index)) for index, child in enumerate(node.of)
            )
            return Threshold(k=node.k, of=children)
        keys = officer_keys(policy, node.principal)
        if len(keys) == 1:
            spkis[path] = keys[0].spki
            return node
        for index, key in enumerate(keys):
            spkis[_below(path, index)] = key.spki
        return Threshold(k=1, of=tuple(Person(principal=node.principal) for _ in keys))

    log = policy.log_key()
    if log is None:
        return grow(policy.quorum, ""), spkis
    tree = grow(policy.quorum, _QUORUM)
    spkis[LOG_PATH] = log.public
    return Threshold(k=2, of=(tree, Person(principal=log.name))), spkis


def _below(path: str, index: int) -> str:
    return f"{path}/{index}" if path else str(index)


def signing_path(policy: Policy, key: KeyId) -> str | None:
    """Return the leaf of `signing_tree` that a signing key fills."""
    holder = policy.holder(key)
    leaf = leaf_of(policy.quorum, holder.id) if holder else None
    if holder is None or leaf is None:
        return None
    keys = [candidate.key_id for candidate in officer_keys(policy, holder.id)]
    if key not in keys:
        return None
    steps = [
        *([_QUORUM] if policy.logged is not None else []),
        *([leaf.path] if leaf.path else []),
        *([str(keys.index(key))] if len(keys) > 1 else []),
    ]
    return "/".join(steps)


def leaf_of(tree: Node, principal: str) -> Leaf | None:
    """Return a person's one leaf."""
    return next((leaf for leaf in leaves(tree) if leaf.principal == principal), None)


def shortfall(tree: Node, principals: Collection[str]) -> tuple[Shortfall, ...]:
    """Say what ``principals`` lack of the tree."""
    have = [leaf.path for leaf in leaves(tree) if leaf.principal in principals]
    return missing(tree, have)
