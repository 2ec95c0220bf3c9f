"""What every test shares: which modules bring the fixtures for the sandbox and for Azurite."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = ("sandbox_fixtures", "azurite_fixtures", "dataplane_fixtures")

# pytest wants plugins in the outermost conftest.
pytest_plugins = [f"tests.{name}" for name in FIXTURES if (HERE / "tests" / f"{name}.py").is_file()]
