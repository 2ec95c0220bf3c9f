"""What every test shares: the modules tests/*_fixtures.py, which bring the fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

# pytest wants plugins to be named in the outermost conftest.
pytest_plugins = sorted(
    f"tests.{path.stem}" for path in (Path(__file__).parent / "tests").glob("*_fixtures.py")
)
# One of them may import another before pytest comes to it.
pytest.register_assert_rewrite(*pytest_plugins)
