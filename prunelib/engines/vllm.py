"""The fast engine: vLLM, started once per base model, interventions switched in place.

vLLM is believed only as far as it can prove: after every switch the prefix cache must be gone,
the workers' read-back must equal the request, and a canary prompt must answer as it did before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prunelib.components import Component
from prunelib.engines.base import Canary, Completion, Forced, Prompt
from prunelib.engines.canary import TOLERANCE, CanaryMemory, check_canary
from prunelib.engines.limits import (
    ENDLESS,
    check_scorable,
    cut,
    end_token_ids,
    forced_texts,
    model_limits,
    prompt_error,
    stop_token_ids,
    until_stop,
)
from prunelib.engines.vllm_steering import END
from prunelib.errors import EngineDeadError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.steering import Steering, module_of
from prunelib.models import ModelInfo, adapter_for
from prunelib.models.loading import load_tokenizer

_EXTENSION = "prunelib.engines.vllm_worker.PrunelibWorker"
#: The most ``logprob_token_ids`` of one vLLM request.
_MOST_CANDIDATES = 128
#: Tokens of a cache block on a CPU; vLLM's own 128 would never share the prefix of a short prompt.
_CPU_BLOCK = 32
#: Text and number of candidates of the engine's own canary. Shorter than a block: never cached.
_CANARY_TEXT = "one->two\nthree->"
_CANARY_CANDIDATES = 16


def _set_environment() -> None:
    """Environment variables that vLLM reads; to be set before it is imported."""
    # In this process: killing it frees everything, and nothing has to cross a socket.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # Only plain data goes to the workers; a pickled function would be code from who knows where.
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "0"
    # Its warnings are about features that are not used here, some of them with a traceback.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Standard output belongs to whoever runs us.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    # GiB. Without it a CPU engine takes nine tenths of the machine's memory.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    # Bound threads of two engines on the same cores would wait for each other.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


@contextmanager
def _engine_errors(doing: str) -> Iterator[None]:
    """Any exception out of vLLM: its scheduler may still hold the requests, so it is dead."""
    try:
        yield
    except Exception as error:
        raise EngineDeadError(f"vLLM: {doing} failed: {type(error).__name__}: {error}") from error


class VllmEngine:
    """Greedy completions and log-probabilities from vLLM, with interventions switched in place.

    Starting it seeds the global random generators of this process (vLLM does that).

    Args:
        info: the base model.
        dtype: of weights and activations.
        tensor_parallel: GPUs over which the model is split.

    Raises:
        EngineDeadError: vLLM did not start, or runs something other than this model.
    """

    kind = "vllm"
    runs = frozenset({Ablation.kind, Steering.kind})

    def __init__(self, info: ModelInfo, dtype: str = "float32", tensor_parallel: int = 1) -> None:
        self._info = info
        self._dtype = dtype
        self._tokenizer: Any = load_tokenizer(info)
        self._stops = stop_token_ids(self._tokenizer, info.ends)
        self._ends = end_token_ids(self._tokenizer, info.ends)
        self._live: Intervention | None = None
        self._steers = False
        context, self._vocabulary = model_limits(info)
        with _engine_errors("starting"):
            self._llm: Any
            self._llm, on_cpu = _start(info, dtype, tensor_parallel, context)
            # vLLM lowers the context to what fits into its cache.
            config = self._llm.llm_engine.model_config
            self._context = min(context, int(config.max_model_len))
            adapter = adapter_for(info.model_type)
            places = [[site, *adapter.place(site), info.components(site), info.span(site)]
                      for site in adapter.sites]
            self._slices: list[list[Any]] = self._llm.collective_rpc(
                "prunelib_install", args=(places, info.layers)
            )
        self._memory = CanaryMemory(0.0 if on_cpu else TOLERANCE[dtype])
        self._own_canary = _own_canary(self._tokenizer)
        self.switch(BASELINE)

    def switch(self, intervention: Intervention, canary: Canary | None = None) -> None:
        """Make ``intervention`` the live one, drop the prefix cache, and have the engine prove it.

        Raises:
            UserError: it is neither ablation nor steering, not one of this model, or scales the
                stream, which vLLM holds in two parts; the old one stays live.
            EngineDeadError: a proof failed; nothing is computed until a later switch succeeds.
            UnitError: the canary's prompt fills the context, or an id of it does not exist.
        """
        if not isinstance(intervention, Ablation | Steering):
            raise UserError(f"engine 'vllm' cannot run interventions of kind {intervention.kind}")
        intervention.check(self._info)
        steering = intervention if isinstance(intervention, Steering) else Steering()
        ablation = intervention if isinstance(intervention, Ablation) else BASELINE
        if any(edit.place == "stream" and edit.factor != 1 for edit in steering.edits):
            raise UserError("engine 'vllm' cannot scale the stream: use engine: transformers")
        self._live = None
        request = [[site, layer, indices] for site in ablation.sites
                   for layer, indices in ablation.by_layer(site).items()]
        with _engine_errors("switching"):
            self._llm.collective_rpc("prunelib_switch", args=(request,))
            paths = [list(module_of(adapter_for(self._info.model_type), edit.place))
                     for edit in steering.edits]
            self._llm.collective_rpc("prunelib_steer", args=(
                steering.content(), paths, self._info.layers))
            steered = self._llm.collective_rpc("prunelib_steered")
            replies = self._llm.collective_rpc("prunelib_readback")
            reset = self._llm.reset_prefix_cache()
        if reset is not True:
            raise EngineDeadError("vLLM kept its prefix cache: some request still holds blocks")
        self._check_readback(ablation, replies)
        if any(Steering.from_content(found) != steering for found in steered):
            raise EngineDeadError(f"{steering} is not what vLLM's workers do")
        self._steers = bool(steering.edits)
        self._memory.check(intervention,
                           self._score([self._own_canary[0]], [self._own_canary[1]])[0])
        if canary is not None:
            answer = self._score([canary.token_ids], [canary.candidates])[0]
            check_canary(canary, answer, self._dtype)
        self._live = intervention

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Greedy completions, in the order of the prompts; a bad prompt gives an error row."""
        self._check_live()
        errors = [prompt_error(p, self._context, self._vocabulary) for p in prompts]
        good = [p for p, error in zip(prompts, errors, strict=True) if error is None]
        answers = [
            until_stop(output.outputs[0].token_ids, self._stops_of(prompt), prompt.max_tokens)
            for output, prompt in zip(self._complete(good), good, strict=True)
        ]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True) if answers else []
        done = iter([(answer, cut(text, prompt.until))
                     for answer, text, prompt in zip(answers, texts, good, strict=True)])
        return [
            Completion(*next(done)) if error is None else Completion((), "", error)
            for error in errors
        ]

    def logprobs(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]],
        begun: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Next-token log-probabilities (natural, full vocabulary) of each prompt's candidates.

        Raises :class:`~prunelib.errors.UnitError` if a prompt fills the context or an id does not
        exist.
        """
        self._check_live()
        return self._score(prompts, candidates, begun)

    def force(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]],
        fill: bool = False,
    ) -> list[Forced]:
        """Teacher forcing: log-probabilities of each prompt's continuation, in their order.

        vLLM keeps room for one token behind a prompt, so nothing changes with ``fill``.
        Continuations that differ in their last token alone share a request, as vLLM reads all but
        that. A bad prompt gives an error of that one alone.
        """
        self._check_live()
        texts, done = forced_texts(prompts, continuations, self._context, self._vocabulary)
        # By text and length of its continuation: where a prompt ends matters to a steering.
        groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for text, members in texts.items():
            for i in members:
                groups.setdefault((text, len(continuations[i])), []).append(i)
        asked = []
        for (text, length), members in groups.items():
            last = sorted({continuations[i][-1] for i in members})
            for start in range(0, len(last), _MOST_CANDIDATES):
                asked.append((text, length, last[start : start + _MOST_CANDIDATES]))
        found: dict[tuple[tuple[int, ...], int], tuple[list[Any], dict[int, float], int]] = {}
        outputs = self._run([text for text, _, _ in asked],
                            [_forcing(last, length > 1) for _, length, last in asked],
                            [len(text) - length for text, length, _ in asked])
        for (text, length, _), output in zip(asked, outputs, strict=True):
            first = output.outputs[0]
            last_ones = found.get((text, length), ([], {}, 0))[1] | {
                token: entry.logprob for token, entry in first.logprobs[0].items()}
            found[text, length] = (list(output.prompt_logprobs or ()), last_ones,
                                   first.token_ids[0])
        for key, members in groups.items():
            for i in members:
                done[i] = _forced(continuations[i], *found[key])
        return [done[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Shut vLLM down. Only the end of the process surely frees all of its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        llm, self._llm, self._live = self._llm, None, None
        if llm is not None:
            with _engine_errors("closing"):
                llm.llm_engine.engine_core.shutdown()
                del llm
                cleanup_dist_env_and_memory()

    def _check_live(self) -> None:
        if self._live is None:
            raise EngineDeadError("this engine is closed, or its last switch failed")

    def _check_readback(self, ablation: Ablation, replies: list[list[Any]]) -> None:
        """Every rank must have off exactly what was asked of its slice of components."""
        for slices, (off, found) in zip(self._slices, replies, strict=True):
            of_rank = {site: range(start, stop) for site, start, stop in slices}
            own = Ablation.of(c for c in ablation.components if c.index in of_rank[c.site])
            read = {
                Component(int(layer), site, int(index))
                for site, layer, indices in off
                for index in indices
            }
            if read != set(own.components) or found != own.digest:
                wrong = sorted(read ^ set(own.components))
                raise EngineDeadError(
                    f"components {slices}: {len(wrong)} are not as asked, e.g. {wrong[:3]}"
                )

    def _complete(self, prompts: Sequence[Prompt]) -> list[Any]:
        from vllm import SamplingParams

        # vLLM makes no text here (detokenize), so what ends in a text is cut by us, afterwards.
        params = {
            (prompt.max_tokens, prompt.until is None): SamplingParams(
                temperature=0.0,
                max_tokens=prompt.max_tokens,
                stop_token_ids=self._stops_of(prompt),
                # The stop ids are ours alone; a checkpoint's own list would differ by engine.
                ignore_eos=True,
                detokenize=False,
            )
            for prompt in prompts
        }
        return self._run([p.token_ids for p in prompts],
                         [params[p.max_tokens, p.until is None] for p in prompts])

    def _stops_of(self, prompt: Prompt) -> list[int]:
        return self._stops if prompt.until is None else self._ends

    def _score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]],
        begun: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Log-probabilities of the candidates, in requests of at most 128 of them."""
        from vllm import SamplingParams

        check_scorable(prompts, candidates, self._context, self._vocabulary)
        rows: list[int] = []
        chunks: list[list[int]] = []
        for row, wanted in enumerate(candidates):
            ids = sorted(set(wanted))
            for start in range(0, len(ids), _MOST_CANDIDATES):
                rows.append(row)
                chunks.append(ids[start : start + _MOST_CANDIDATES])
        outputs = self._run(
            [prompts[row] for row in rows],
            [
                SamplingParams(
                    temperature=0.0, max_tokens=1, logprob_token_ids=chunk, detokenize=False
                )
                for chunk in chunks
            ],
            [len(prompts[row]) - 1 - (begun[row] if begun else 0) for row in rows],
        )
        found: list[dict[int, float]] = [{} for _ in prompts]
        for row, output in zip(rows, outputs, strict=True):
            first = output.outputs[0].logprobs[0]
            found[row].update({token: entry.logprob for token, entry in first.items()})
        return [[found[row][i] for i in wanted] for row, wanted in enumerate(candidates)]

    def _run(self, prompts: Sequence[Sequence[int]], params: Sequence[Any],
             ends: Sequence[int] | None = None) -> list[Any]:
        """One call of vLLM; outputs in the order of the prompts.

        ``ends``: the position at which each prompt ends, if an answer follows in it.
        """
        from vllm import TokensPrompt

        if not prompts:
            return []
        asked, params = [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts], list(params)
        if self._steers:
            for i, ids in enumerate(prompts):
                end = ends[i] if ends else len(ids) - 1
                params[i] = params[i].clone()
                params[i].extra_args = {END: end}
                # Only prompts that end alike have the same states behind the same tokens.
                asked[i]["cache_salt"] = str(end)
        with _engine_errors("generating"):
            outputs = self._llm.generate(
                asked,
                params,
                use_tqdm=False,
            )
        if len(outputs) != len(prompts):
            raise EngineDeadError(f"vLLM answered {len(outputs)} of {len(prompts)} prompts")
        return list(outputs)


def _forcing(last: list[int], inner: bool) -> Any:
    """One token is made, at most; log-probabilities of these, and of the prompt's own tokens."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=last,
                          prompt_logprobs=1 if inner else None, detokenize=False)


def _forced(continuation: Sequence[int], before: list[Any], last: dict[int, float], best: int
            ) -> Forced:
    """A continuation's log-probabilities, all but the last of which are those of a prompt."""
    inner = continuation[:-1]
    entries = before[len(before) - len(inner):]
    logprobs = [entry[token].logprob for token, entry in zip(inner, entries, strict=True)]
    ranked = [min(entry, key=lambda token: entry[token].rank) for entry in entries]
    return Forced((*logprobs, last[continuation[-1]]), (*ranked, best))


def _start(info: ModelInfo, dtype: str, tensor_parallel: int, context: int) -> tuple[Any, bool]:
    """A running vLLM, and whether it runs on a CPU."""
    _set_environment()
    from vllm import LLM
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    settings: dict[str, Any] = {"dtype": dtype}
    if on_cpu:
        # Compiled code drops hooks, so the masks need eager execution.
        settings |= {"enforce_eager": True, "block_size": _CPU_BLOCK}
    llm = LLM(
        model=info.path,
        skip_tokenizer_init=True,
        # -1: as much of the model's context as fits into the cache; None: vLLM's own default.
        max_model_len=None if context == ENDLESS else -1,
        tensor_parallel_size=tensor_parallel,
        worker_extension_cls=_EXTENSION,
        load_format="safetensors",
        trust_remote_code=info.trust_remote_code,
        use_tqdm_on_load=False,
        generation_config="vllm",
        # A Mamba's states between prompts are kept by its GPU kernels only.
        enable_prefix_caching=not (on_cpu and info.site == "mixer_in"),
        **settings,
    )
    return llm, on_cpu


def _own_canary(tokenizer: Any) -> tuple[list[int], list[int]]:
    """A fixed short prompt and candidates spread evenly over the vocabulary."""
    prompt = list(tokenizer(_CANARY_TEXT)["input_ids"])[: _CPU_BLOCK - 1]
    size = len(tokenizer)
    step = max(1, size // _CANARY_CANDIDATES)
    return prompt, list(range(0, size, step))[:_CANARY_CANDIDATES]
