"""What to do about a refusal, where the check alone says it and the rule that refuses does not."""

from __future__ import annotations

_LISTS = "get the newest *.crl; a custodian makes one: custody custodian renew-crl"
_ASK_AGAIN = "the host asks again with what is in force now: custody host request"
_NEWEST = "get the environment's newest folder"

#: By check id.
HINTS = {
    "attestation.V53": "the host asks with the log of this boot: --event-log, or CUSTODY_EVENT_LOG",
    "certificate.path": "get the newest *.cer of the environment",
    "certificate.validity": "a custodian admits him again: custody custodian admit",
    "crl.found": _LISTS,
    "crl.fresh": _LISTS,
    "crl.number": _LISTS,
    "endorsement.inventory": "if it is yours, its digest goes there from the delivery papers",
    "file.regular": "give the file itself, and not a folder or a link",
    "manifest.expired": "the publisher seals it again",
    "policy.living-officers": "name all of the environment's files with --env; renew its lists and "
    "certificates, or change the tree",
    "policy.rollback": _NEWEST,
    "policy.pin": "the folder is another environment's, or lacks the policy that was pinned",
    "policy.expired": "the custodians sign the next version: custody custodian policy propose",
    "request.enrolment": _NEWEST,
    "request.golden": _NEWEST,
    "request.manifest": "this request is not of this bundle: custody publisher inspect BUNDLE",
    "request.policy": _ASK_AGAIN,
    "request.mode": "the modes a host may ask for are the policy's: custody custodian policy show",
}
