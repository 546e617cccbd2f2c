"""What can go wrong and be mended by the user: the command line prints these without a traceback.

A message says what happened, where, what was expected and found, and what to do next.
"""


class DeepcnnError(Exception):
    """Base of every error that deepcnn raises on purpose.

    `told`: another process of the same training tells the user.
    """

    told = False


class ConfigError(DeepcnnError):
    """A setting that does not exist, or whose value cannot be used."""


class DataError(DeepcnnError):
    """A data set that is missing, incomplete, damaged or not of the stated format."""


class RunError(DeepcnnError):
    """A run directory that is missing, in use, or not what the command needs."""


class CheckpointError(DeepcnnError):
    """A checkpoint that is missing, damaged, or does not fit the run."""


class TrainingError(DeepcnnError):
    """Training that cannot go on: the loss is no longer finite."""


class ExportError(DeepcnnError):
    """A network that cannot be exported, or whose export does not answer as it does itself."""
