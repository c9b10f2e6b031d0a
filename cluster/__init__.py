"""Everything that imports Ray."""

from cluster.executor import RayExecutor

__all__ = ["RayExecutor"]
