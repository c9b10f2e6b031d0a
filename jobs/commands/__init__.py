"""The commands of ``prunelib``: one file each, and a line each in :mod:`jobs.commands.registry`."""
