"""Every error that this package raises on purpose.

    Qwen35Error
    ├── UsageError            an option, argument or request that cannot be honoured
    │   ├── SamplingError     a sampling value outside its range
    │   ├── TemplateError     messages that the chat template refuses
    │   └── ContextError      prompt (or prompt + answer) longer than the context
    ├── ModelNotFound         no such model, directory or file
    ├── CheckpointError       the files are damaged, incomplete or of an unknown layout
    │   ├── ConfigError       config.json is missing, unsupported or contradicts the tensors
    │   ├── ExpertReadError   an expert's bytes cannot be read, or changed while the model was in use
    │   └── TokenizerError    tokenizer.json is missing, damaged or of another model
    ├── DownloadError         a transfer that cannot go on; what was received is kept
    ├── SessionError          a saved session that is damaged, of another model, or in use
    ├── StorageError          a disk without room, or a place that cannot be written
    ├── MemoryPlanError       the model does not fit the memory it was given
    ├── MediaError            an image or video that cannot be used
    ├── BackendUnavailable    the library that this model or machine needs is not installed
    └── NumericError          the model produced NaN or infinity

The message is one sentence for a person: what is wrong, with both numbers, and what to change.
`cli.py` prints it and exits with status 2; the server answers 4xx or 5xx with it.
"""


class Qwen35Error(Exception):
    """Root of the tree; `str(error)` is one sentence without a traceback."""


class UsageError(Qwen35Error):
    """An option, argument or request that cannot be honoured; `param` names it where there is one."""

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param


class SamplingError(UsageError):
    """A sampling value outside its range."""


class TemplateError(UsageError):
    """Messages that the chat template refuses."""


class ContextError(UsageError):
    """A prompt, or prompt and answer together, longer than the context."""


class ModelNotFound(Qwen35Error):
    """No such model, directory or file."""


class CheckpointError(Qwen35Error):
    """Model files that are damaged, incomplete or of an unknown layout."""


class ConfigError(CheckpointError):
    """A config.json that is missing, unsupported, or contradicts the tensors."""


class ExpertReadError(CheckpointError):
    """An expert's bytes that cannot be read, or a file that changed while the model was in use."""


class TokenizerError(CheckpointError):
    """A tokenizer.json that is missing, damaged, or of another model."""


class DownloadError(Qwen35Error):
    """A transfer that cannot go on; what was received is kept."""


class SessionError(Qwen35Error):
    """A saved session that is damaged, of another model or format, or in use; its files are left as they are."""


class StorageError(Qwen35Error):
    """A disk without room, or a place that cannot be written."""


class MemoryPlanError(Qwen35Error):
    """A model that does not fit the memory it was given."""


class MediaError(Qwen35Error):
    """An image or video that cannot be used."""


class BackendUnavailable(Qwen35Error):
    """The library that this model or machine needs is not installed."""


class NumericError(Qwen35Error):
    """The model produced NaN or infinity."""
