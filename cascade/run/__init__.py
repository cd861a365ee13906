"""`Cascade`: load a graph, run requests through it, and keep their traces."""

from cascade.run._cascade import Cascade
from cascade.run._loop import BackgroundLoop
from cascade.run._nested import build_models
from cascade.run._stores import Stores

__all__ = ["BackgroundLoop", "Cascade", "Stores", "build_models"]
