"""How help names what a command takes: ``CASE...``, ``N`` and ``a|b``, and no type of Python.

typer writes ``CASE <list[Path]>`` and ``<int range>``, which say nothing to whoever asks for help.
"""

from __future__ import annotations

from typing import Any

#: A choice of more letters is told in the words beside it, and not in the column of names.
_WIDEST = 32
_ANY = {int: "N", float: "N"}


def name_values(params: list[Any]) -> None:
    """Have parameters of typer's named in words.  Any: typer's private types.

    What is set here is what typer asks when it writes help.  Where a version of typer asks
    something else, its help is as it was.
    """
    for param in params:
        if getattr(param, "type_descriptor", None) is None:
            continue
        bounds = _bounds(param)
        param._get_number_range_help_str = lambda bounds=bounds: bounds  # noqa: SLF001
        if param.param_type_name == "argument":
            _name_argument(param)
        elif param.metavar is None and not param.is_flag:
            _name_option(param)


def spoken_help(text: str | None) -> str:
    """Write what a docstring says without its marks."""
    return (text or "").replace("``", "")


def _name_argument(param: Any) -> None:
    name = param.metavar or param.name.upper()
    several = "..." if param.nargs != 1 else ""
    usage = name + several if param.required else f"[{name}]{several}"
    param.metavar = name
    param.get_usage_pieces = lambda _ctx: [usage]
    # In the list of arguments nothing stands behind the name.
    param.display_type_rich = lambda **_: ""


def _name_option(param: Any) -> None:
    described = param.type_descriptor
    words = [str(choice) for choice in described.choices or ()]
    joined = "|".join(words)
    if not words:
        param.metavar = _ANY.get(described.annotation, "TEXT")
    elif len(joined) <= _WIDEST:
        param.metavar = joined
    else:
        param.metavar = param.name.upper()
        before, mark, after = (param.help or "").partition("  [")
        param.help = f"{before.rstrip('.')}: {', '.join(words)}.{mark}{after}"


def _bounds(param: Any) -> str | None:
    low, high = param.min, param.max
    if low is None:
        return None if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"
