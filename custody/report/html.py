"""An audit, or a period, as one self-contained HTML page: no script, the same bytes each time.

Whatever a case holds comes from strangers.  Every value is escaped by the template engine, with
characters that hide or turn around others replaced before; and a browser that were still tricked
may load nothing and run nothing: the page's Content-Security-Policy lets in its own style sheet,
by hash, and nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from custody import __version__
from custody.encoding import Digest, sha256
from custody.ops.archive import Archive
from custody.ops.audit import AuditReport
from custody.ops.overdue import Overdue
from custody.report import words
from custody.report.logged import MAX_DRAWN_ENTRIES
from custody.report.period import Period, period_of, told
from custody.report.timeline import MAX_DRAWN
from custody.report.views import page_of


def render_report(report: AuditReport) -> bytes:
    """Write the page of an audit (UTF-8)."""
    return render("report.html.j2", page=page_of(report))


def render_period(
    archive: Archive,
    overdue: Sequence[Overdue],
    *,
    pin: Digest,
    since: datetime,
    until: datetime,
) -> bytes:
    """Write the page of a period (UTF-8)."""
    return render_page(period_of(archive, overdue, pin=pin, since=since, until=until))


def render_page(page: Period) -> bytes:
    """Write the page of a period that is worked out already (UTF-8)."""
    return render("period.html.j2", page=page, told=told(page))


def render(template: str, **values: object) -> bytes:
    """Write a page by one of the templates (UTF-8)."""
    environment = _environment()
    style = environment.get_template("report.css").render().strip()
    digest = base64.b64encode(sha256(style.encode())).decode("ascii")
    page = environment.get_template(template).render(
        style=Markup(style),  # noqa: S704  # our own file
        style_hash=digest,
        version=__version__,
        **values,
    )
    return page.encode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("custody.report"),
        autoescape=True,
        finalize=_written,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(words=words, max_drawn=MAX_DRAWN, max_entries=MAX_DRAWN_ENTRIES)
    return environment


def _written(value: object) -> object:
    """Prepare every value a template writes; what a macro made is written already."""
    return value if isinstance(value, Markup) else words.plain(str(value))
