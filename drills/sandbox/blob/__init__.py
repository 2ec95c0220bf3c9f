"""Azurite beside the sandbox: installing, starting and stopping Microsoft's blob emulator."""
