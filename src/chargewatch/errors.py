"""Every error that chargewatch raises on purpose.

A message names the thing that is wrong and the next step; the command line prints it as one line.
"""

from __future__ import annotations


class ChargewatchError(Exception):
    """Root of all errors raised on purpose."""


class SettingError(ChargewatchError):
    """A setting is missing or can't be read."""


class DatabaseError(ChargewatchError):
    """The database can't be reached, or refuses what was asked of it."""


class BrokerError(ChargewatchError):
    """The broker can't be reached, or refuses what was asked of it."""


class RegistryFileError(ChargewatchError):
    """A registry file has a bad row; nothing of the file was taken."""


class InputFileError(ChargewatchError):
    """A file given to a command is missing or can't be read."""


class EngineError(ChargewatchError):
    """An embedded engine could not be started."""


class BenchError(ChargewatchError):
    """A measurement could not be made."""


class NotFoundError(ChargewatchError):
    """What was asked for does not exist."""
