"""Next-token prediction: projector, decoder and one head (arXiv 2504.04060, section 3.2 and its baseline `NTP`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import TalkerSettings
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.compat import RULES
from vocalnet_cli.core.model.talker import decoding, masks, official_decoding
from vocalnet_cli.core.model.talker.backbone import LayerStack, init_weights, norm, rotary_table
from vocalnet_cli.core.model.talker.contract import Lengths, SpeechSampling, Talker, TalkerLoss, TalkerState
from vocalnet_cli.core.model.talker.losses import decayed_loss
from vocalnet_cli.core.model.talker.official_decoding import OfficialState


class PredictionModule(nn.Module):
    """One more prediction: a layer over the previous module's states, then a norm and a head of its own."""

    def __init__(self, settings: TalkerSettings) -> None:
        super().__init__()
        self.stack = LayerStack(settings, 1)
        self.norm = norm(settings)
        self.head = nn.Linear(settings.hidden, settings.codes + 4)


class NtpTalker(Talker):
    """Reads [BOS, text | SOS, speech]: thinker states through the projector, tokens through the embedding, both through the decoder."""

    loss_decay = 1.0

    def __init__(self, settings: TalkerSettings, compat: str = "paper") -> None:
        super().__init__()
        self.settings = settings
        self.compat = compat
        self.bos, self.sos, self.eos, self.pad = range(settings.codes, settings.codes + 4)
        self.embedding = nn.Embedding(settings.codes + 4, settings.hidden, padding_idx=self.pad)
        self.projector = LayerStack(settings, settings.projector_layers)
        self.decoder = LayerStack(settings, settings.decoder_layers)
        self.norm = norm(settings)
        self.head = nn.Linear(settings.hidden, settings.codes + 4)
        self.extra: Any = nn.ModuleList(PredictionModule(settings) for _ in range(getattr(settings, "modules", 0)))
        self.apply(init_weights)

    # --- training --------------------------------------------------------------------------------------------------

    def loss(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> TalkerLoss:
        """Cross-entropy of every head, decayed; `hidden` [B, L, H], `speech` long [B, S]. EOS is a target of every head."""
        columns = torch.arange(speech.shape[1] + 1, device=speech.device)
        ended = torch.nn.functional.pad(speech, (0, 1), value=self.pad)
        count = lengths.speech[:, None]
        targets = torch.where(columns < count, ended, torch.where(columns == count, self.eos, self.pad))
        return decayed_loss(self.scores(hidden, speech, lengths), targets, self.loss_decay, self.pad)

    def scores(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> list[Tensor]:
        """Logits [B, S + 1, V] of every head, main head first. Head k in row r is about token r + k; row 0 is SOS.

        Modules read the whole chain: text rows pass through every module too. Rows past a sample's end hold nothing meaningful.
        """
        rows, rotary, seen = self._layout(hidden, speech, lengths)
        states = self.decoder(rows, rotary, seen[0])
        text = hidden.shape[1] + 1
        logits = [self.head(self.norm(states[:, text:]))]
        for module, mask in zip(self.extra, seen[1:], strict=True):
            states = module.stack(states, rotary, mask)  # the previous states before their norm
            logits.append(module.head(module.norm(states[:, text:])))
        return logits

    def _layout(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor]]:
        """The decoder's input [B, N, H], its rotary table, and one mask [B, 1, N, N] for the decoder and each module."""
        columns = (hidden.shape[1] + 1, speech.shape[1] + 1)
        numbers = masks.row_numbers(*columns, device=hidden.device)
        rotary = self.rotary(masks.positions(numbers, columns[0], self.compat))
        arguments = (lengths.text + 1, lengths.speech + 1, lengths.streaming, columns, self.chunks, self.compat)
        # Padding sees itself: a row that sees nothing is not a number on some attention kernels.
        self_seen = torch.eye(len(numbers), dtype=torch.bool, device=hidden.device)
        if RULES[self.compat].modules_look_ahead:
            seen = [(masks.training_mask(*arguments, depth=k) | self_seen)[:, None] for k in range(1 + len(self.extra))]
        else:
            seen = [(masks.training_mask(*arguments) | self_seen)[:, None]] * (1 + len(self.extra))
        count = torch.arange(speech.shape[1], device=speech.device)
        tokens = torch.where(count < lengths.speech[:, None], speech, self.pad)
        starts = self.embedding(tokens.new_tensor([[self.bos, self.sos]])).expand(len(tokens), -1, -1)
        text = self.project(hidden)
        return torch.cat([starts[:, :1], text, starts[:, 1:], self.embedding(tokens)], dim=1), rotary, seen

    # --- shared by training and decoding ---------------------------------------------------------------------------

    @property
    def chunks(self) -> tuple[int, int]:
        """Text and speech rows a chunk."""
        return self.settings.text_chunk, self.settings.speech_chunk

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary table of positions [N] or [B, N]."""
        return rotary_table(positions, self.settings.hidden // self.settings.heads, self.embedding.weight.dtype)

    def project(self, hidden: Tensor, cache: GrowingCache | None = None) -> Tensor:
        """Projector over thinker states [B, n, H] that follow those in `cache`. Causal in every mode, positions from 0."""
        start = cache.get_seq_length() if cache is not None else 0
        rows = torch.arange(start, start + hidden.shape[1], device=hidden.device)
        keys = torch.arange(start + hidden.shape[1], device=hidden.device)
        return self.projector(hidden.to(self.embedding.weight.dtype), self.rotary(rows), (keys <= rows[:, None])[None, None], cache)

    # --- decoding --------------------------------------------------------------------------------------------------

    def begin(
        self, batch: int = 1, streaming: bool = True, tokens_per_step: int = 1, sampling: SpeechSampling | None = None
    ) -> TalkerState | OfficialState:
        """State of a new answer; `tokens_per_step` uses the main head and the first `tokens_per_step` - 1 modules."""
        decoder = official_decoding if RULES[self.compat].broken_streams else decoding
        return decoder.begin(self, batch, streaming, tokens_per_step, sampling or SpeechSampling())

    @torch.no_grad()
    def step(self, state: TalkerState | OfficialState, hidden: Tensor | None, last: bool, limit: int | None = None) -> Tensor:
        """See `Talker.step`. Under `official` a call is one chunk whatever `limit` says, and special ids leave too."""
        if isinstance(state, OfficialState):
            return official_decoding.step(self, state, hidden, last)
        return decoding.step(self, state, hidden, last, limit)

    @torch.no_grad()
    def speak(
        self, hidden: Tensor, lengths: Tensor, streaming: bool, tokens_per_step: int, sampling: SpeechSampling | None = None
    ) -> list[list[int]]:
        """See `Talker.speak`. Not for `official`, whose code never spoke several answers at once."""
        if RULES[self.compat].broken_streams:
            raise ValueError("compat 'official' speaks one answer at a time: use `begin` and `step`")
        return decoding.speak(self, hidden, lengths, streaming, tokens_per_step, sampling or SpeechSampling())
