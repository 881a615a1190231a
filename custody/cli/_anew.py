"""What was judged before somebody was waited for is judged anew, as of his answer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from custody.cli import _words
from custody.cli._home import moment
from custody.ops.trust import later

if TYPE_CHECKING:
    from custody.cli._ui import Screen
    from custody.ops.home import Home
    from custody.rules.situation import Situation

#: Whoever took longer to answer is told that what he read is judged anew.
_LONG_WAIT = timedelta(minutes=1)


def judged_anew(screen: Screen, home: Home, situation: Situation) -> Situation:
    """Return the situation of this moment, after a question or a PIN; its policy over: Refused.

    What is answered by it is judged by it: consents, deadlines and certificates end while a
    terminal waits.
    """
    before, now = situation.now, moment(None)
    if now - before >= _LONG_WAIT:
        screen.say(
            f"begun {_words.time(before)}, answered {_words.time(now)}: "
            "judged anew, as of the answer"
        )
    return later(home, situation, now=now)
