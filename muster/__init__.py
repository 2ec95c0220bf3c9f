"""The front door of muster: commands, settings, wiring and reports."""

__version__ = "0.1.0"
