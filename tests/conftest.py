"""Which examples Hypothesis draws: the same ones in every `make test`, new ones in `make soak`."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A run that is red by luck teaches people to run it again; searching is what a soak is for.
settings.register_profile("test", derandomize=True, deadline=None)
settings.register_profile("soak", derandomize=False, deadline=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile, before any test module is imported."""
    settings.load_profile("soak" if config.option.markexpr == "soak" else "test")
