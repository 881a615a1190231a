"""Values that are read at once mean what typer would have made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
import typer.main

from custody.cli import ROLES, app
from custody.cli._later import Group
from custody.cli._plain import read_plainly

_TEXTS = (
    *(
        "",
        " ",
        "x",
        "-",
        "é",
        "\udcff",
        "a\nb",
        "0",
        "7",
        "-1",
        "+1",
        "007",
        "8",
        "1_0",
        "٣",
        "1.0",
    ),
    *("9" * 18, "9" * 19, "9" * 400, "nan", "once", "Once", "sealed", "true", "None", "~", "$HOME"),
    *(".", "/", "/dev/null", "nowhere/x", "file", "folder", "folder/", "file/x", "secret", "a\0b"),
)


KINDS: dict[str, Any] = {
    "text": Annotated[str, typer.Option()],
    "texts": Annotated[list[str] | None, typer.Option()],
    "argument": Annotated[str, typer.Argument()],
    "arguments": Annotated[list[Path], typer.Argument()],
    "path": Annotated[Path | None, typer.Option()],
    "paths": Annotated[list[Path] | None, typer.Option()],
    "there": Annotated[Path | None, typer.Option(exists=True)],
    "folder": Annotated[Path | None, typer.Option(file_okay=False)],
    "real": Annotated[Path | None, typer.Option(resolve_path=True)],
    "number": Annotated[int, typer.Option()],
    "few": Annotated[int, typer.Option(min=1, max=7)],
    "clamped": Annotated[int, typer.Option(min=1, max=7, clamp=True)],
    "rate": Annotated[float | None, typer.Option()],
    "word": Annotated[Literal["once", "sealed"], typer.Option()],
    "loose": Annotated[Literal["once", "sealed"], typer.Option(case_sensitive=False)],
    "parsed": Annotated[str | None, typer.Option(parser=ascii)],
    "flag": Annotated[bool, typer.Option()],
}


def parameter(kind: str) -> Any:
    """Return a new parameter of a kind."""

    def command(value: Any = None) -> None:
        """Take a value."""

    command.__annotations__["value"] = KINDS[kind]
    program = typer.Typer(add_completion=False)
    program.command()(command)
    return typer.main.get_command(program).params[0]


def read(param: Any, value: object) -> tuple[type, str]:
    """Return what a parameter makes of a value, or how it refuses it, with its type."""
    context = typer.Context(typer.main.get_command(app))
    several = isinstance(value, str) and (param.multiple or param.nargs == -1)
    try:
        found = param.process_value(context, (value, value) if several else value)
    except typer.BadParameter as error:
        return type(error), error.format_message()
    return type(found), repr(found)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder of things to point at."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").mkdir(mode=0o000)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_what_typer_makes_of_it(kind: str) -> None:
    """Read plainly, every kind of value is what typer reads, or refused in the same words."""
    for value in (*_TEXTS, None, True, 3, 99, ("x", "y"), Path("folder")):
        [param] = read_plainly([parameter(kind)])
        assert read(parameter(kind), value) == read(param, value), (kind, value)


def test_plain_values_need_no_pydantic() -> None:
    """What is plainly good is read without typer's own reader, and so without its import."""
    for kind, value in {"text": "x", "paths": ["x"], "few": "7", "word": "once"}.items():
        [param] = read_plainly([parameter(kind)])
        plainly = param.get_runtime_param()
        read(param, value)
        assert plainly is param.get_runtime_param(), kind


def groups() -> dict[str, Group]:
    """Return every role's group."""
    root = typer.main.get_command(app)
    assert isinstance(root, Group)
    context = typer.Context(root)
    found = {role: root.get_command(context, role) for role in ROLES}
    return {role: group for role, group in found.items() if isinstance(group, Group)}


GROUPS = groups()


@pytest.mark.parametrize("role", GROUPS)
def test_a_command_is_where_its_role_says(role: str) -> None:
    """Each name that a role gives for commands to come later is one of exactly those."""
    for verbs in GROUPS[role].verbs:
        assert set(verbs.names) == set(verbs.commands())


@pytest.mark.parametrize("role", GROUPS)
def test_what_is_asked_for_is_what_is_listed(role: str) -> None:
    """A command that is imported alone has the options of the one that help lists."""
    group = GROUPS[role]
    context = typer.Context(group)
    names = [name for verbs in group.verbs for name in verbs.names]
    found = {name: group.get_command(context, name) for name in names}
    alone = {name: [p.opts for p in command.params] for name, command in found.items() if command}
    listed = {name: [p.opts for p in group.commands[name].params] for name in names}
    assert listed == alone
    assert set(names) <= set(group.list_commands(context))
