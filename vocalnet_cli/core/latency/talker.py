"""How fast talkers speak, at any size with random weights: several kinds in turn, and each against itself without caches."""

from __future__ import annotations

import difflib
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.mistakes import KINDS
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.config.talker_schema import MdmSettings, TalkerChoice, TalkerSettings
from vocalnet_cli.core.errors import UsageError
from vocalnet_cli.core.latency.memory import PeakMemory
from vocalnet_cli.core.latency.random_parts import random_part
from vocalnet_cli.core.latency.timers import DIGITS, Stopwatch, percentiles, ratio_spread
from vocalnet_cli.core.model.talker import build_talker
from vocalnet_cli.core.model.talker.contract import SpeechSampling, Talker, TalkerState
from vocalnet_cli.core.units import SPEECH_TOKEN_HZ

SHORT = {"mtp": "mtp-vocalnet"}
"""Names beside the kinds of the schema, which are all taken."""

_NEVER = -1e4
"""Bias of the end token: random weights would end answers anywhere. Fits fp16."""

_SAMPLES = 4
"""Places of an answer, evenly spread, where a step without caches is timed."""


@dataclass(frozen=True)
class Variant:
    """A talker as `--compare` names it."""

    name: str
    settings: TalkerSettings
    number: int
    """Tokens a step; of masked diffusion, passes a block."""

    @property
    def passes(self) -> bool:
        """Whether `number` counts passes."""
        return isinstance(self.settings, MdmSettings)

    @property
    def tokens_per_step(self) -> float:
        """Tokens a forward pass gives."""
        return self.settings.speech_chunk / self.number if self.passes else self.number


def find_variant(name: str, recipe: Recipe) -> Variant:
    """A kind of talker and its number: `ntp`, `mtp3` (mtp-vocalnet, 3 tokens a step), `mdm4` (4 passes a block), any kind of the schema.

    What the recipe's talker has too is its own, all else the kind's; kinds with modules get as many as the step needs at least, those
    with groups a group of the step's size. Raises UsageError for a name that is none.
    """
    matched = re.fullmatch(r"(.*?)([1-9][0-9]*)?", name)
    kind = matched[1] if matched else name
    kinds = KINDS["talker"]
    if SHORT.get(kind, kind) not in kinds:
        known = [*kinds, *SHORT]
        close = difflib.get_close_matches(kind, known, n=1)
        raise UsageError(
            f"--compare: {name!r} is no talker{f'. Nearest: {close[0]}' if close else ''}",
            f"There are {', '.join(known)}, each with its tokens a step (mdm: passes a block) behind it: mtp3.",
        )
    chosen = kinds[SHORT.get(kind, kind)]
    given = recipe.model.talker
    own = type(given).model_fields
    # A key whose usual value differs between the kinds does not mean the same to both.
    shared = [key for key, field in chosen.model_fields.items() if key != "kind" and key in own and own[key].default == field.default]
    settings = cast(TalkerSettings, chosen(**{key: getattr(given, key) for key in shared}))
    tokens = recipe.generation.tokens_per_step
    usual = tokens if tokens in settings.step_sizes else settings.step_sizes[-1]
    if chosen is MdmSettings:
        usual = recipe.generation.steps if isinstance(recipe.generation.steps, int) else MdmSettings().block
    number = int(matched[2]) if matched and matched[2] else usual
    return Variant(name, settings.for_step(number), number)


def find_variants(names: str, recipe: Recipe) -> list[Variant]:
    """Those of a comma-separated list; the first is what the others are compared with. Raises UsageError."""
    variants = [find_variant(name.strip(), recipe) for name in names.split(",") if name.strip()]
    if not variants or len({variant.name for variant in variants}) < len(variants):
        raise UsageError(f"--compare {names}: names {'no talker' if not variants else 'a talker twice'}", "Name several, as in ntp,mtp3.")
    return variants


def talker_latency(
    variants: Sequence[Variant],
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Each variant speaks an answer of `latency.answer_s`, chunk by chunk as its text arrives, in turn, `latency.repeats` times.

    `tokens_per_s` are medians over the rounds, `ratio` is each over the first, `spread` p10 and p90 of the rounds' ratios;
    `first_chunk_ms` is the time until the first chunk of speech is there. `baseline` has the same of steps that compute the whole
    answer so far again: the same modules, threads and arithmetic, timed at evenly spread places of the answer (not for masked
    diffusion). Raises VocalnetError for a talker that is too large or cannot draw as many tokens.
    """
    settings = recipe.latency
    benches = _build(variants, recipe, device, dtype, seed)
    total = len(variants) * (settings.repeats + settings.baseline)
    peak, done, stopped = PeakMemory(device), 0, False
    for bench in benches:
        bench.speak(bench.chunk)  # what is allocated once
    try:
        for turn in range(settings.repeats):
            for bench in benches if turn % 2 == 0 else reversed(benches):
                advance(done, total)
                bench.answer()
                done += 1
        for bench in benches if settings.baseline else ():
            advance(done, total)
            bench.recompute()
            done += 1
        advance(done, total)
    except KeyboardInterrupt:
        if not all(bench.answers_s for bench in benches):
            raise
        stopped = True
    return {
        **_told(benches, settings.baseline),
        "answer_s": benches[0].count / SPEECH_TOKEN_HZ,
        "memory_mb": peak.mb(),
        "interrupted": stopped,
    }


class _Bench:
    """One variant, the text it speaks, and its times."""

    def __init__(self, variant: Variant, talker: Talker, hidden: Tensor, count: int) -> None:
        self.variant = variant
        self.count = count
        """Speech tokens of the answer."""
        self.answers_s: list[float] = []
        self.firsts_s: list[float] = []
        self.uncached_s: list[float] = []
        """Seconds of a step that computes everything again."""
        self._talker = talker
        self._hidden = hidden
        """Thinker states [1, L, H]."""
        self._clock = Stopwatch(hidden.device)

    @property
    def chunk(self) -> int:
        """Speech tokens of the first chunk."""
        return min(self.variant.settings.speech_chunk, self.count)

    def speak(self, count: int) -> list[int]:
        """The first `count` tokens of the answer, its text handed over in chunks. There is always more text: so it never ends by itself."""
        spoken: list[int] = []
        state = self._begin(count)
        for chunk in self._hidden.split(self.variant.settings.text_chunk, dim=1):
            spoken += self._talker.step(state, chunk, False).tolist()
            if len(spoken) >= count:
                break
        return spoken

    def answer(self) -> None:
        """One whole answer, timed, and its first chunk before it."""
        self.firsts_s.append(self._clock(lambda: self.speak(self.chunk)))
        self.answers_s.append(self._clock(lambda: self.speak(self.count)))

    def recompute(self) -> None:
        """Steps without caches: each begins anew, reads all text and all tokens so far, and draws once."""
        if not isinstance(self._begin(1), TalkerState):
            return
        spoken = self.speak(self.count)
        for number in range(_SAMPLES):
            there = self.count * (2 * number + 1) // (2 * _SAMPLES)
            prefix = spoken[: there - there % self.variant.number]  # whole steps
            self.uncached_s.append(self._clock(lambda prefix=prefix: self.again(prefix)))  # type: ignore[misc]

    def again(self, prefix: list[int]) -> list[int]:
        """The tokens of the step after `prefix`, nothing kept from before."""
        state = self._begin(self.variant.number)
        assert isinstance(state, TalkerState)
        self._talker.step(state, self._hidden, False, limit=0)
        # Tokens that were drawn and are not yet read: all of them, so one forward pass reads the whole answer so far.
        state.pending = torch.cat([state.pending, torch.tensor([prefix], dtype=torch.long, device=state.pending.device)], dim=1)
        return self._talker.step(state, None, False, limit=1).tolist()

    @property
    def tokens_per_s(self) -> list[float]:
        return [self.count / seconds for seconds in self.answers_s]

    @property
    def uncached_per_s(self) -> float:
        return self.variant.number / statistics.fmean(self.uncached_s)

    def _begin(self, count: int) -> Any:
        """State of an answer of at most `count` tokens."""
        number, passes = self.variant.number, self.variant.passes
        sampling = SpeechSampling(max_speech_tokens=count, steps=number if passes else None)
        return self._talker.begin(1, True, 1 if passes else number, sampling)


def _build(variants: Sequence[Variant], recipe: Recipe, device: torch.device, dtype: torch.dtype, seed: int) -> list[_Bench]:
    """A bench each; variants that differ in their tokens a step alone share their weights."""
    talkers: dict[TalkerSettings, Talker] = {}
    count = max(1, round(recipe.latency.answer_s * SPEECH_TOKEN_HZ))
    benches = []
    for variant in variants:
        settings = variant.settings
        if settings not in talkers:
            # Every kind of the schema is a TalkerChoice.
            talkers[settings] = random_part(lambda settings=settings: build_talker(cast(TalkerChoice, settings)), device, dtype, seed)  # type: ignore[misc]
            _never_end(talkers[settings], settings)
        rows = settings.text_chunk * (1 - (-count // settings.speech_chunk))
        width = getattr(settings, "text_hidden", None) or settings.hidden
        hidden = torch.randn(1, rows, width, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
        benches.append(_Bench(variant, talkers[settings], hidden, count))
    return benches


def _never_end(talker: nn.Module, settings: TalkerSettings) -> None:
    """No head draws the end token (BOS, SOS, EOS, PAD follow the codes). Masked diffusion ends no answer while there is more text."""
    for name, module in talker.named_modules():
        if name.endswith("head") and isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.view(-1, settings.codes + 4)[:, settings.codes + 2] = _NEVER  # some heads score several tokens


def _told(benches: Sequence[_Bench], baseline: bool) -> dict[str, Any]:
    first, names = benches[0], [bench.variant.name for bench in benches]
    ratios = {
        f"{bench.variant.name}/{names[0]}": ratio_spread(first.answers_s[: len(bench.answers_s)], bench.answers_s[: len(first.answers_s)])
        for bench in benches[1:]
    }
    told: dict[str, Any] = {
        "n": min(len(bench.answers_s) for bench in benches),
        "tokens_per_s": {bench.variant.name: round(statistics.median(bench.tokens_per_s), 2) for bench in benches},
        "ratio": {name: spread["p50"] for name, spread in ratios.items()},
        "spread": {name: [spread["p10"], spread["p90"]] for name, spread in ratios.items()},
        "rtf": {bench.variant.name: round(SPEECH_TOKEN_HZ / statistics.median(bench.tokens_per_s), 4) for bench in benches},
        "first_chunk_ms": {bench.variant.name: percentiles([1000 * value for value in bench.firsts_s]) for bench in benches},
        "tokens_per_step": {bench.variant.name: bench.variant.tokens_per_step for bench in benches},
    }
    compared = [bench for bench in benches if bench.uncached_s]
    if baseline and compared:
        told["baseline"] = {
            "tokens_per_s": {bench.variant.name: round(bench.uncached_per_s, 2) for bench in compared},
            "ratio": {
                bench.variant.name: round(statistics.median(bench.tokens_per_s) / bench.uncached_per_s, DIGITS) for bench in compared
            },
        }
    return told
