"""Small local experts first, larger models only when measured confidence is too low."""

from cascade.errors import (
    CascadeError,
    ConfigError,
    ModelError,
    PrivacyError,
    RequestError,
    TraceError,
)
from cascade.records import Decision, Result, Step, TextPiece
from cascade.run.cascade import Cascade

__version__ = "0.1.0"

__all__ = [
    "Cascade",
    "CascadeError",
    "ConfigError",
    "Decision",
    "ModelError",
    "PrivacyError",
    "RequestError",
    "Result",
    "Step",
    "TextPiece",
    "TraceError",
    "__version__",
]
