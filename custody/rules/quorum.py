"""The quorum tree seen from the two sides that enforce it: shares and signatures."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from custody.crypto.quorum import Leaf, Node, Person, Shortfall, Threshold, leaves, missing
from custody.encoding import KeyId
from custody.formats.policy import Policy, SigningKey


def officer_keys(policy: Policy, principal: str) -> tuple[SigningKey, ...]:
    """Return an officer's signing keys in key id order."""
    person = policy.principal(principal)
    keys = [key for key in person.keys if isinstance(key, SigningKey)] if person else []
    return tuple(sorted(keys, key=lambda key: key.key_id))


def signing_tree(policy: Policy) -> tuple[Node, Mapping[str, bytes]]:
    """Return the tree that H's policy is made of, and the SPKI at each of its leaves.

    It is the policy's tree, but an officer with several tokens becomes a 1-of-n node over his
    keys: any of them signs for his one leaf.
    """
    spkis: dict[str, bytes] = {}

    def grow(node: Node, path: str) -> Node:
        if isinstance(node, Threshold):
            children = tuple(
                grow(child, f"{path}/{index}" if path else str(index))
                for index, child in enumerate(node.of)
            )
            return Threshold(k=node.k, of=children)
        keys = officer_keys(policy, node.principal)
        if len(keys) == 1:
            spkis[path] = keys[0].spki
            return node
        for index, key in enumerate(keys):
            spkis[f"{path}/{index}"] = key.spki
        return Threshold(k=1, of=tuple(Person(principal=node.principal) for _ in keys))

    return grow(policy.quorum, ""), spkis


def signing_path(policy: Policy, key: KeyId) -> str | None:
    """Return the leaf of `signing_tree` that a signing key fills."""
    holder = policy.holder(key)
    leaf = leaf_of(policy.quorum, holder.id) if holder else None
    if holder is None or leaf is None:
        return None
    keys = [candidate.key_id for candidate in officer_keys(policy, holder.id)]
    if key not in keys:
        return None
    return leaf.path if len(keys) == 1 else f"{leaf.path}/{keys.index(key)}"


def leaf_of(tree: Node, principal: str) -> Leaf | None:
    """Return a person's one leaf."""
    return next((leaf for leaf in leaves(tree) if leaf.principal == principal), None)


def shortfall(tree: Node, principals: Collection[str]) -> tuple[Shortfall, ...]:
    """Say what ``principals`` lack of the tree."""
    have = [leaf.path for leaf in leaves(tree) if leaf.principal in principals]
    return missing(tree, have)
