"""The one build step that pyproject.toml cannot say: top-level data moves into the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
DATA = ("hsm_profiles", "softhsm")


class BuildWithData(build_py):
    """Copy hsm_profiles/ and softhsm/ to custody/_data/ of a wheel.

    A checkout (an editable install) keeps them at its top, so that there is one copy to edit.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._data_files():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = list(super().get_outputs(include_bytecode))
        if not self.editable_mode:
            outputs += [str(target) for _, target in self._data_files()]
        return outputs

    def _data_files(self) -> list[tuple[Path, Path]]:
        data = Path(self.build_lib) / "custody" / "_data"
        return [
            (source, data / source.relative_to(ROOT))
            for name in DATA
            for source in sorted((ROOT / name).rglob("*"))
            if source.is_file() and "__pycache__" not in source.parts
        ]


setup(cmdclass={"build_py": BuildWithData})
