"""The whole speech LLM: the parts of the signal path and the few joints between them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vocalnet_cli.core.config.schema import ModelSettings
from vocalnet_cli.core.errors import RecipeError
from vocalnet_cli.core.model.adaptor import Adaptor
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.compat import RULES
from vocalnet_cli.core.model.encoder import SpeechEncoder, build_encoder, encoder_frames
from vocalnet_cli.core.model.folder import PARTS, VOCODER_PARTS
from vocalnet_cli.core.model.prompt import SPEECH, TEXT_END, Prompt, render_prompt, special_id, stop_ids
from vocalnet_cli.core.model.talker import build_talker
from vocalnet_cli.core.model.talker.contract import Talker
from vocalnet_cli.core.model.thinker import build_thinker, last_hidden, text_logits
from vocalnet_cli.core.model.vocoder import CosyVoice2Vocoder, Vocoder, build_vocoder
from vocalnet_cli.core.units import ENCODER_HOP, ENCODER_STRIDE


class SpeechLLM(nn.Module):
    """Encoder, adaptor, thinker, talker and vocoder. Holds weights only: every conversation keeps its own state outside."""

    tokenizer: PreTrainedTokenizerBase
    encoder: SpeechEncoder
    adaptor: Adaptor
    thinker: Any
    talker: Talker
    vocoder: Vocoder | None

    def __init__(self, settings: ModelSettings, parts: Collection[str] = PARTS) -> None:
        super().__init__()
        self.settings = s = settings
        makers: dict[str, Callable[[], nn.Module | None]] = {
            "encoder": lambda: build_encoder(s.encoder),
            "adaptor": lambda: Adaptor(s.adaptor, s.encoder.hidden, s.thinker.hidden),
            "thinker": lambda: build_thinker(s.thinker),
            "talker": lambda: build_talker(s.talker, s.compat),
            "vocoder": lambda: build_vocoder(s.vocoder) if s.vocoder is not None else None,
        }
        for part in PARTS:  # what a training stage has no use for is not built
            setattr(self, part, makers[part]() if part in parts else None)

    def speak_through(self, vocoder: CosyVoice2Vocoder) -> None:
        """Takes a vocoder that is not its own, in the place of the one it has or lacks."""
        self.vocoder = vocoder
        self.settings = self.settings.model_copy(update={"vocoder": vocoder.settings})

    @property
    def device(self) -> torch.device:
        return self.adaptor.linear1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.adaptor.linear1.weight.dtype

    # --- speech in -------------------------------------------------------------------------------------------------

    def windows(self, samples: int) -> int:
        """Windows in which a question of so many 16 kHz samples is heard."""
        return max(1, -(-samples // self.encoder.window_samples))

    def cut(self, question: np.ndarray) -> list[np.ndarray]:
        """The windows [n_i] in which a question (16 kHz samples) is heard, at least one."""
        window = self.encoder.window_samples
        return [question[start : start + window] for start in range(0, max(len(question), 1), window)]

    def audio_length(self, samples: int) -> int:
        """Audio embeddings of one window of `samples` 16 kHz samples (10 a second, rounded down)."""
        if not RULES[self.settings.compat].adaptor_hears_padding:
            mel_frames = max(samples, self.shortest_samples) // ENCODER_HOP
        else:
            window_s = self.settings.encoder.window_s
            # The released code's own rounding, half to even included (vocalnet.md section 2, step 4).
            mel_frames = round(samples / self.encoder.window_samples * (window_s * 100) + 0.5)
        return min(-(-mel_frames // ENCODER_STRIDE), self.encoder.max_source_positions) // self.settings.adaptor.stack

    @property
    def shortest_samples(self) -> int:
        """Samples of the shortest question that still gives one audio embedding; shorter ones are padded with silence."""
        return ENCODER_STRIDE * self.settings.adaptor.stack * ENCODER_HOP

    @torch.no_grad()
    def hear(self, questions: list[np.ndarray]) -> list[Tensor]:
        """Audio embeddings [A, H] of each question (16 kHz samples). Longer than the window: heard window by window, joined."""
        pieces = [(i, piece) for i, question in enumerate(questions) for piece in self.cut(question)]
        states, frames = self.encode([piece for _, piece in pieces])
        heard: list[list[Tensor]] = [[] for _ in questions]
        whole = RULES[self.settings.compat].adaptor_hears_padding
        for (i, piece), row, length in zip(pieces, states, frames, strict=True):
            embeddings = self.adaptor(row[None] if whole else row[None, :length])[0]
            heard[i].append(embeddings[: self.audio_length(len(piece))])
        return [torch.cat(parts) for parts in heard]

    def encode(self, pieces: list[np.ndarray]) -> tuple[Tensor, list[int]]:
        """Encoder states [B, T, hidden] of windows of 16 kHz samples, and how many of each row's frames are speech."""
        waves = [torch.from_numpy(np.pad(p, (0, max(0, self.shortest_samples - len(p))))) for p in pieces]
        mels = [self.encoder.features(wave) for wave in waves]
        lengths = torch.tensor([mel.shape[1] for mel in mels])
        batch = nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        states = self.encoder.encode(batch.to(self.device, self.dtype), lengths.to(self.device))
        return states, encoder_frames(lengths).tolist()

    # --- text ------------------------------------------------------------------------------------------------------

    def prompt_ids(self, question: str = SPEECH) -> Prompt:
        """Token ids around the speech of a single-turn question, which may say more than the speech."""
        thinker = self.settings.thinker
        return _prompt(self.tokenizer, thinker.family, thinker.system_prompt, question, self.settings.compat)

    def embed(self, ids: list[int] | Tensor) -> Tensor:
        """Thinker embeddings [1, n, H] of token ids."""
        return self.thinker.get_input_embeddings()(torch.as_tensor(ids, dtype=torch.long, device=self.device).reshape(1, -1))

    def prompt(self, audio: Tensor) -> Tensor:
        """Prompt embeddings [1, L, H] with the audio embeddings [A, H] in the place of `<speech>`."""
        ids = self.prompt_ids()
        return torch.cat([self.embed(ids.before), audio[None], self.embed(ids.after)], dim=1)

    def new_cache(self) -> GrowingCache:
        """An empty key/value cache for the thinker."""
        return GrowingCache()

    def read(self, embeds: Tensor, cache: GrowingCache) -> tuple[Tensor, Tensor]:
        """One thinker call on [1, n, H]: logits [1, V] after the last position, and states [1, n, H]."""
        hidden = last_hidden(self.thinker, embeds, cache=cache)
        return text_logits(self.thinker, hidden[:, -1]), hidden

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        return stop_ids(self.tokenizer, self.settings.thinker.family)

    @property
    def text_end_id(self) -> int:
        """Token whose embedding ends the talker's text."""
        return special_id(self.tokenizer, TEXT_END[self.settings.thinker.family])

    def talker_rows(self, states: Tensor, ids: Tensor) -> Tensor:
        """What the talker reads of thinker states [..., H] that have read the text tokens `ids` [...]."""
        if not self.settings.talker.reads_tokens:
            return states
        words = self.thinker.get_input_embeddings()(ids).to(states.dtype)
        return states + words * (states.norm(dim=-1, keepdim=True) / words.norm(dim=-1, keepdim=True).clamp_min(1e-6))

    def end_vector(self) -> Tensor:
        """The talker's last text row [1, 1, H]: the raw embedding of the end token (vocalnet.md section 4)."""
        return self.embed([self.text_end_id])


@lru_cache(maxsize=8)
def _prompt(tokenizer: PreTrainedTokenizerBase, family: str, system_prompt: str | None, question: str, compat: str) -> Prompt:
    return render_prompt(tokenizer, family, system_prompt, question, compat=compat)


def build_model(settings: ModelSettings, parts: Collection[str] = PARTS) -> SpeechLLM:
    """A speech LLM of these sizes with random weights; under `torch.device("meta")` it costs no memory. Parts not named are None."""
    return SpeechLLM(settings, parts)


def part_of(model: SpeechLLM, name: str) -> nn.Module:
    """A part of PARTS or VOCODER_PARTS. Raises RecipeError if the model's vocoder is not of a kind that has it."""
    if name not in VOCODER_PARTS:
        return getattr(model, name)
    found = None if model.vocoder is None else dict(model.vocoder.named_children()).get(VOCODER_PARTS[name])
    if found is None:
        kind = None if model.settings.vocoder is None else model.settings.vocoder.kind
        raise RecipeError(
            f"model.vocoder.kind is {kind}: it has no {name} to train", "Set model.vocoder in the recipe to a kind that has one."
        )
    return found
