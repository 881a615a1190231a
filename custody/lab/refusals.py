"""What must not work, tried live: an attempt that is not refused ends the demo with an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from custody.errors import Refused
from custody.formats.request import Request
from custody.lab.actors import Actor, Ran
from custody.lab.release import Release, answers_to, compare
from custody.ops.folders import read_statement_file

_REFUSED: Final = 1
_INCOMPLETE: Final = 4


def tell(release: Release) -> None:
    """Try to open with too little, with two halves, with a damaged payload, with a bad share."""
    lab, stage = release.lab, release.stage
    host = lab.actor("host2")
    stage.scene("Refused: one approval short")
    stage.say("host2 asks twice. sec2 and sec3 approve its first request, and no lead does.")
    first = release.request(host, name="first")
    second = release.request(host, name="second")
    for name in ("sec2", "sec3"):
        release.approve(lab.actor(name), first, host)
    stage.refused(_must_not_open(release, host, first, code=_INCOMPLETE))
    stage.say("The same without our rules: root on host2 shows the TPM what it has.")
    stage.refused(_force(release, host, first))
    _two_requests(release, host, first, second)
    _flipped_byte(release, host, first)
    _bad_share(release, host, first)


def _must_not_open(
    release: Release, host: Actor, request: Path, *, code: int, answers: str = ""
) -> Ran:
    ran = release.open(host, request, answers=answers, expect=code)
    if release.opened(host).exists() or release.receipt(host).exists():
        raise Refused(
            "a refused command left something behind", check="lab.refusal", where=ran.command
        )
    return ran


def _force(
    release: Release, host: Actor, *requests: Path, answers: str = "", expect: int = _REFUSED
) -> Ran:
    """Attack with every check of ours left out; the TPM must refuse by itself."""
    folder = release.at(host) / (answers or answers_to(requests[0]))
    return host.run_module(
        "custody.lab.attack",
        [
            "force",
            *(str(path.relative_to(host.directory)) for path in requests),
            *("--answers", str(folder.relative_to(host.directory))),
        ],
        expect=expect,
    )


def _two_requests(release: Release, host: Actor, first: Path, second: Path) -> None:
    stage, lab = release.stage, release.lab
    stage.scene("Refused: two halves of a quorum")
    stage.say(
        "lead1 approves host2's second request. Two of sec on the first and one lead on the"
        " second would satisfy the tree together."
    )
    release.approve(lab.actor("lead1"), second, host)
    for request in (first, second):
        for path in (release.at(host) / answers_to(request)).iterdir():
            release.carry(path, host, under="answers-to-both")
    for request in (first, second):
        stage.refused(
            _must_not_open(release, host, request, code=_INCOMPLETE, answers="answers-to-both")
        )
    stage.say("The same without our rules: every signature and share of both, to the TPM.")
    stage.refused(_force(release, host, first, second, answers="answers-to-both"))
    digest = read_statement_file(Request, second).digest
    stage.say("host2 gives its second request up: that burns its key.")
    stage.show(host.run("host", "cancel", digest))


def _flipped_byte(release: Release, host: Actor, request: Path) -> None:
    stage = release.stage
    stage.scene("Refused: one flipped byte")
    stage.say(
        "lead2 completes the quorum, and now the TPM opens the shares, without our rules too; but"
        " one byte of host2's payload is not the sealed one."
    )
    release.approve(release.lab.actor("lead2"), request, host)
    # The control: an attack that fails because it is badly written would prove nothing.
    stage.show(_force(release, host, request, expect=0))
    with _one_byte_flipped(release.at(host) / "bundle" / "payload"):
        stage.refused(_must_not_open(release, host, request, code=_REFUSED))
    stage.result("nothing was left behind; the byte is put right again")


@contextmanager
def _one_byte_flipped(path: Path) -> Iterator[None]:
    """Flip a byte in the middle of a file, in place; a copy of a large model costs too much."""
    with path.open("r+b") as file:
        at = path.stat().st_size // 2

        def flip() -> None:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1]))
            file.flush()

        flip()
        try:
            yield
        finally:
            flip()


def _bad_share(release: Release, host: Actor, request: Path) -> None:
    stage = release.stage
    stage.scene("Named: a corrupted share")
    stage.say("sec1 approves in every form, but with a share that he made up.")
    sec1 = release.lab.actor("sec1")
    lie = release.made_by(sec1) / "corrupt.sec1.approval.dsse"
    request_there = release.at(sec1) / request.name
    made = sec1.run_module(
        "custody.lab.attack",
        [
            "corrupt",
            str(request_there.relative_to(sec1.directory)),
            *("--out", str(lie.relative_to(sec1.directory))),
        ],
    )
    stage.show(made)
    release.send_answer(lie, request, host)
    ran = release.open(host, request)
    named = [line for line in ran.talk.splitlines() if line.startswith("bad share")]
    if not named:
        raise Refused("the bad share was not named", check="lab.refusal", where=ran.command)
    stage.show(ran)
    for line in named:
        stage.result(line)
    compare(release, host)
    release.carry(release.receipt(host), release.auditor)
    release.carry(release.burn(host), release.auditor)
    audited = release.audit()
    said = [line for line in audited.output.splitlines() if line.startswith("bad share")]
    if not said:
        raise Refused("the auditor did not see it", check="lab.refusal", where=audited.command)
    stage.result(f"aud1 reads it in the receipt: {said[0].removeprefix('bad share').strip()}")
