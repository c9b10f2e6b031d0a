"""Recipes as jobs of a Ray cluster: submit one, follow its log, stop it.

A job takes prunelib's own source with it, so that it runs the code it was submitted with; what the
cluster has to have is the environment (Ray, torch, vLLM). The source with the reference models is
some 12 MB, and Ray stores the same upload once. Modules and files of the current folder that a
recipe names go along too.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from cluster.access_tokens import (
    START_HEAD,
    make_token,
    missing_token,
    read_token,
    wanted,
    wrong_token,
)
from cluster.runtime import check_reachable
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.own_functions import import_function
from prunelib.pipeline.driver import prepare
from prunelib.recipe.brought import RESULTS, own_files, own_functions
from prunelib.recipe.load import load_recipe
from prunelib.recipe.recipe import Recipe

#: What a job may take with it, in bytes. Ray itself refuses 512 MiB, after it has packed them.
MAX_UPLOAD = 100 << 20
_PACKAGES = ("prunelib", "cluster", "jobs")
_IGNORED = shutil.ignore_patterns("__pycache__", ".*")
#: They set their own level to say how a package was uploaded and why a socket was closed.
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk",
           "ray._private.runtime_env.packaging")
_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass(frozen=True)
class Job:
    """A job as its cluster knows it.

    Attributes:
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: what Ray says about the state.
        run: run of the recipe; None if prunelib did not submit the job.
        results: location of its results; None likewise.
    """

    id: str
    state: str
    message: str
    run: str | None
    results: str | None

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.state in _ENDED


def check_location(results: str) -> str:
    """``results`` in one spelling. Raises :class:`UserError` for a relative path."""
    if "://" in results:
        return results.rstrip("/")
    if not Path(results).is_absolute():
        raise UserError(f"--results '{results}' is relative, and a job has a folder of its own: "
                        "give an absolute path that all nodes see, or a URL such as s3://…")
    return os.path.normpath(results)


def check_models(recipe: Recipe) -> list[str]:
    """Check the models that this machine has, and return those that only the cluster can check.

    Those are hub names, and folders and GGUF files that are not here: a job looks at them before
    its first unit.

    Raises:
        UserError: a model that is here is wrong, or a path is relative.
    """
    here = [spec for spec in recipe.models
            if spec.id.startswith("reference/") or Path(spec.id).exists()]
    for spec in here:
        if not (spec.id.startswith("reference/") or Path(spec.id).is_absolute()):
            raise UserError(f"models: '{spec.id}' is a relative path, and a job has a folder of "
                            "its own: give an absolute path that all nodes see")
    if here:
        prepare(recipe.model_copy(update={"models": tuple(here)}), elsewhere=True)
    return [spec.id for spec in recipe.models if spec not in here]


def job_id(recipe: Recipe, results: str) -> str:
    """Id of the first job that runs ``recipe`` to ``results``: the same for whoever asks."""
    return f"prunelib-{recipe.run_id}-{digest('results', check_location(results))[:8]}"


class Jobs:
    """The jobs of one cluster, by Ray's Jobs API."""

    def __init__(self, address: str) -> None:
        """Connect to the dashboard at ``address``, such as ``http://head:8265``.

        Raises:
            UserError: nobody answers there, or the token is missing or wrong.
        """
        self.address = address.rstrip("/")
        if urlsplit(address).scheme not in ("http", "https"):
            raise UserError(f"'{address}' is no address of a dashboard: give one such as "
                            "http://head:8265")
        headers = _authorization(self.address)
        check_reachable(self.address)
        # These would win over the address that was given.
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        from ray.job_submission import JobSubmissionClient

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._explained():
            self._client = JobSubmissionClient(self.address, headers=headers)
        if headers:
            _refuse_open(self.address)

    def submit(self, path: Path, results: str, gpus: int = 0) -> tuple[Job, bool]:
        """Start a job that runs a recipe, unless one does already.

        Returns the job and whether it is new. The id depends on the recipe and the location of
        its results alone, and Ray takes an id once, so that any number of submissions at the same
        time end in one job. When that job is over, the next one has a number behind its id.

        Raises:
            UserError: the recipe or the location is wrong, or the upload is too large.
        """
        recipe, results = load_recipe(path), check_location(results)
        check_models(recipe)
        own = taken_along(recipe)
        first = job_id(recipe, results)
        for number in itertools.count(1):
            name = first if number == 1 else f"{first}-{number}"
            job, new = self._find(name), False
            if job is None:
                new = self._start(name, path, recipe, own, results, gpus)
                job = self.get(name)
            if new or not job.ended:
                return job, new
        raise AssertionError

    def get(self, name: str) -> Job:
        """A job by its id. Raises :class:`UserError` if there is none."""
        job = self._find(name)
        if job is None:
            raise UserError(f"the cluster at {self.address} has no job '{name}'")
        return job

    def logs(self, name: str) -> str:
        """All that a job has printed so far."""
        self.get(name)
        with self._explained():
            return str(self._client.get_job_logs(name))

    def follow(self, name: str) -> Iterator[str]:
        """What a job has printed and prints from now on, until it ends."""
        self.get(name)
        with self._explained(), asyncio.Runner() as runner:
            chunks = self._client.tail_job_logs(name)

            async def following() -> str | None:
                return await anext(chunks, None)

            while (chunk := runner.run(following())) is not None:
                yield chunk

    def stop(self, name: str, patience: float = 30.0) -> tuple[Job, bool]:
        """Stop a job and wait ``patience`` seconds for its end; its results stay.

        Returns the job and whether it was running at all.
        """
        if (job := self.get(name)).ended:
            return job, False
        with self._explained():
            self._client.stop_job(name)
        deadline = time.monotonic() + patience
        while not (job := self.get(name)).ended and time.monotonic() < deadline:
            time.sleep(0.2)
        return job, True

    def _find(self, name: str) -> Job | None:
        with self._explained():
            try:
                info = self._client.get_job_info(name)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise
        about = info.metadata or {}
        return Job(name, str(info.status.value), info.message or "", about.get("prunelib_run"),
                   about.get("prunelib_results"))

    def _start(self, name: str, path: Path, recipe: Recipe, own: dict[str, Path], results: str,
               gpus: int) -> bool:
        """Start a job; False if somebody else gave Ray one of this id in the meantime."""
        command = ["python", "-m", "jobs.overnight", "recipe.yaml", "--results", results]
        if gpus:
            command += ["--gpus", str(gpus)]
        check_upload(path, own)
        with tempfile.TemporaryDirectory(prefix="prunelib-") as folder, self._explained():
            collect_upload(path, Path(folder), own)
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=name,
                    runtime_env={"working_dir": folder},
                    metadata={"prunelib_run": recipe.run_id, "prunelib_results": results},
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the Jobs API in the words of a :class:`UserError`."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise wrong_token(self.address) from error
        except (ConnectionError, requests.RequestException, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"no answer of Ray's Jobs API from {self.address}, which has to be "
                            f"the dashboard's address (http://head:8265): {reason}") from error


def _authorization(address: str) -> dict[str, str]:
    """The header that shows the token; empty where tokens are switched off."""
    if not wanted():
        return {}
    if token := read_token():
        return {"Authorization": f"Bearer {token}"}
    if urlsplit(address).hostname in ("localhost", "127.0.0.1"):
        raise UserError(f"there was no Ray token, so {make_token()} was made: start the cluster "
                        f"with it ({START_HEAD}), or set RAY_AUTH_TOKEN to the token that a "
                        "running one has")
    raise missing_token(address)


def _refuse_open(address: str) -> None:
    """Raise :class:`UserError` if the cluster also answers to somebody without a token."""
    import requests

    if requests.get(f"{address}/api/version", timeout=10).ok:
        raise UserError(f"the cluster at {address} asks nobody for a token, so whoever reaches it "
                        f"can run anything there: start it with {START_HEAD} (or set "
                        "RAY_AUTH_MODE=disabled here if you mean it)")


def _sources() -> dict[str, Path]:
    """Package → its folder, as this process imports it."""
    found = {}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None  # noqa: S101
        found[name] = Path(spec.origin).parent
    return found


def taken_along(recipe: Recipe) -> dict[str, Path]:
    """Place in the upload → file or folder of what a recipe needs of the current folder.

    That are the top modules of its functions, and the files that it names by relative paths. What
    lies elsewhere is taken for installed on the cluster too, or for a path that all nodes see.

    Raises:
        UserError: a function cannot be imported here, or a file cannot be taken along.
    """
    found = {}
    for kind, name in own_functions(recipe):
        import_function(kind, name)
        top = name.partition(":")[0].partition(".")[0]
        # A package is there by its name, also without __init__.py; a module by its file.
        module = importlib.util.find_spec(top)
        places = (module.submodule_search_locations or [module.origin or ""]) if module else []
        here = [Path(place) for place in places if Path(place).parent == Path.cwd()]
        if here and top not in _PACKAGES:
            found[here[0].name] = here[0]
    for key, path in own_files(recipe):
        place = os.path.normpath(path)
        if Path(path).is_absolute():
            continue
        if key == RESULTS or Path(place).parts[:1] in ((), (os.pardir,)):
            raise UserError(f"{key}: '{path}' is a relative path, and a job takes along no results "
                            "and nothing from outside the current folder: give an absolute path "
                            "that all nodes see")
        found[place] = Path.cwd() / place
    return found


def check_upload(recipe: Path, own: Mapping[str, Path] = MappingProxyType({})) -> None:
    """Raise :class:`UserError`, naming what is large, if a job would take too much with it."""
    sizes = {recipe: recipe.stat().st_size}
    for source in (*_sources().values(), *own.values()):
        if source.is_file():
            sizes[source] = source.stat().st_size
        for root, names, files in os.walk(source):
            skipped = _IGNORED(root, [*names, *files])
            names[:] = [name for name in names if name not in skipped]
            sizes |= {Path(root, name): Path(root, name).stat().st_size
                      for name in files if name not in skipped}
    total = sum(sizes.values())
    if total > MAX_UPLOAD:
        large = sorted(sizes, key=lambda file: -sizes[file])[:3]
        raise UserError(f"a job would upload {total / 1e6:.0f} MB, and {MAX_UPLOAD / 1e6:.0f} MB "
                        "are allowed; the largest files are "
                        + ", ".join(f"{file} ({sizes[file] / 1e6:.0f} MB)" for file in large))


def collect_upload(recipe: Path, folder: Path, own: Mapping[str, Path] = MappingProxyType({})
                   ) -> None:
    """Fill ``folder`` with what a job needs: the recipe, the three packages, and ``own`` files.

    Whatever else lies beside them (results, environments, git) stays where it is. The version
    goes along in the form in which installed packages keep it, since the job has no git.
    """
    shutil.copyfile(recipe, folder / "recipe.yaml")
    for name, source in (_sources() | dict(own)).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copyfile(source, place)
        else:
            shutil.copytree(source, place, ignore=_IGNORED, dirs_exist_ok=True)
    about = folder / "prunelib-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: prunelib\nVersion: {_version()}\n")


def _version() -> str:
    """Version with commit, as Python packages spell it: ``0.1.0+9b04357ba1f2.dirty``."""
    from prunelib.pipeline.provenance import code_version

    number, _, commit = code_version().partition(" ")
    return f"{number}+{commit.replace('+', '.')}" if commit else number
