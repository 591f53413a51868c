"""What talkers share that speak from left to right: projector, causal decoder, training forward (arXiv 2504.04060, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vocalnet_cli.core.config.talker_schema import TalkerSettings
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.compat import RULES
from vocalnet_cli.core.model.talker import decoding, masks, official_decoding
from vocalnet_cli.core.model.talker.backbone import LayerStack, added, init_weights, norm, rotary_table, side_by_side
from vocalnet_cli.core.model.talker.chunked import chunked_cross_entropy
from vocalnet_cli.core.model.talker.contract import Lengths, SpeechSampling, Talker, TalkerLoss, TalkerState
from vocalnet_cli.core.model.talker.losses import decayed, head_targets
from vocalnet_cli.core.model.talker.official_decoding import OfficialState
from vocalnet_cli.core.model.talker.side_by_side import SideBySide


class AutoregressiveTalker(Talker):
    """Reads [BOS, text | SOS, speech]: thinker states through the projector, tokens through the embedding, both through the decoder.

    A kind of talker is what it overrides: how tokens become rows (`embed`), what stands after the decoder (`extra`, `join`), and how
    states are scored (`predict`). Training and decoding both go through these alone, so they cannot differ.
    """

    group = 1
    """Speech tokens a row holds."""
    loss_decay = 1.0

    def __init__(self, settings: TalkerSettings, compat: str = "paper") -> None:
        super().__init__()
        self.settings = settings
        self.compat = compat
        self.bos, self.sos, self.eos, self.pad = range(settings.codes, settings.codes + 4)
        self.embedding = nn.Embedding(self.vocab, settings.hidden, padding_idx=self.pad)
        self.projector = LayerStack(settings, settings.projector_layers)
        self.decoder = LayerStack(settings, settings.decoder_layers)
        self.norm = norm(settings)
        self.head: nn.Linear = self.new_head()
        self.extra: Any = self.new_modules()
        self.apply(init_weights)

    @property
    def vocab(self) -> int:
        """Codes and the four special ids."""
        return self.settings.codes + 4

    # --- what a kind of talker is ----------------------------------------------------------------------------------

    def new_head(self) -> nn.Linear:
        """The output layer over the decoder's normed states."""
        return nn.Linear(self.settings.hidden, self.vocab)

    def new_modules(self) -> nn.ModuleList:
        """Prediction modules after the decoder, each with a LayerStack `stack`; module k is used from k + 1 tokens a step on."""
        return nn.ModuleList()

    def embed(self, tokens: Tensor) -> Tensor:
        """Decoder rows [B, n, H] of speech tokens long [B, n * group]."""
        return self.embedding(tokens)

    def join(self, depth: int, states: Tensor, tokens: Tensor) -> Tensor:
        """What module `depth` reads, made of the un-normed states [B, n, H] before it and the tokens [B, n] predicted there (text: PAD)."""
        return states

    def predict(self, depth: int, states: Tensor, count: int) -> Tensor:
        """Scores [..., m, V] of the tokens told by un-normed states [..., H] after stack `depth`, where a step wants `count` in all."""
        return self.head(self.norm(states))[..., None, :]

    def scorers(self, depth: int) -> list[nn.Module]:
        """The modules whose weights `predict` uses."""
        return [self.norm, self.head]

    def weigh(self, counts: Tensor) -> Tensor:
        """What a nat of each head weighs in the loss, given how many targets the heads have: [heads]."""
        return decayed(counts, self.loss_decay)

    # --- training --------------------------------------------------------------------------------------------------

    def loss(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> TalkerLoss:
        """Cross-entropy of every head; `hidden` [B, L, H], `speech` long [B, S]. EOS is a target of every head, what follows it of none."""
        targets = self.targets(speech, lengths)
        counts = (targets != self.pad).sum((0, 1))
        weights = self.weigh(counts if lengths.targets is None else lengths.targets)
        totals, sums, head = [], [], 0
        for depth, states in enumerate(self.states(hidden, speech, lengths)):
            heads = slice(head, head + self.heads_at(depth))
            head = heads.stop
            total, found = chunked_cross_entropy(
                partial(self.predict, depth, count=self.settings.step_sizes[-1]),
                self.scorers(depth),
                states.flatten(0, 1),
                targets[..., heads].flatten(0, 1),
                weights[heads],
                self.pad,
            )
            totals.append(total)
            sums.append(found)
        return TalkerLoss(torch.stack(totals).sum(), list(torch.cat(sums) / counts.clamp(min=1)))

    def heads_at(self, depth: int) -> int:
        """How many of the heads stand after stack `depth`: one at each, or all after the decoder."""
        return 1 if len(self.extra) else self.settings.step_sizes[-1]

    def targets(self, speech: Tensor, lengths: Lengths) -> Tensor:
        """What each head is to predict in each row, PAD where nothing: long [B, R, heads]."""
        spoken = self.spoken(speech, lengths)
        return torch.stack([head_targets(spoken, head, self.group, self.pad) for head in range(self.settings.step_sizes[-1])], dim=-1)

    def counts(self, speech: Tensor, lengths: Lengths) -> Tensor:
        """See `Talker.counts`."""
        return (self.targets(speech, lengths) != self.pad).sum((0, 1))

    def spoken(self, speech: Tensor, lengths: Lengths) -> Tensor:
        """Speech tokens, EOS, PAD: long [B, S + 1]."""
        columns = torch.arange(speech.shape[1] + 1, device=speech.device)
        count = lengths.speech[:, None]
        return torch.where(columns < count, pad(speech, (0, 1)), torch.where(columns == count, self.eos, self.pad))

    def scores(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> list[Tensor]:
        """Logits [B, R, V] of every head, R = S // group + 1; head k in row r is about token r * group + k; row 0 is SOS.

        For looking at them: the loss never holds them all. Rows past a sample's end hold nothing meaningful.
        """
        states = self.states(hidden, speech, lengths)
        return [one for depth, rows in enumerate(states) for one in self.predict(depth, rows, self.settings.step_sizes[-1]).unbind(-2)]

    def states(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> Iterator[Tensor]:
        """Un-normed states [B, R, H] of the speech rows after the decoder and after each module.

        Modules read the whole chain: text rows pass through every module too.
        """
        states, rotary, masks = self._layout(hidden, speech, lengths)
        spoken, text = self.spoken(speech, lengths), hidden.shape[1] + 1
        together = side_by_side(states)
        there = self._there(lengths, text, states.shape[1] - text)
        if together:
            places = there.flatten().nonzero()[:, 0]
            shape, states = states.shape, states.flatten(0, 1).index_select(0, places)
        seen: dict[int, Any] = {}
        for depth, mask in enumerate(masks):
            if id(mask) not in seen:  # one for all stacks, or one each
                kind = states.dtype
                seen = {id(mask): SideBySide.packed(mask, rotary, there, self.settings.heads) if together else added(mask, kind)}
            if depth:
                following = pad(head_targets(spoken, depth - 1, 1, self.pad), (text, 0), value=self.pad)
                states = self.join(depth, states, following.flatten()[places] if together else following)
            if together:
                states = self.stack(depth).run(states, seen[id(mask)])
                yield states.new_zeros(shape).flatten(0, 1).index_copy(0, places, states).view(shape)[:, text:]
            else:
                states = self.stack(depth)(states, rotary, seen[id(mask)])
                yield states[:, text:]

    def _there(self, lengths: Lengths, text: int, speech: int) -> Tensor:
        """Which of `text` and `speech` columns hold something: bool [B, text + speech]."""
        rows = torch.arange(text, device=lengths.text.device), torch.arange(speech, device=lengths.text.device)
        return torch.cat([rows[0] <= lengths.text[:, None], rows[1] <= (lengths.speech // self.group)[:, None]], dim=1)

    def _layout(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor]]:
        """The decoder's input [B, N, H], its rotary table, and the bool mask [B, 1, N, N] of the decoder and of each module."""
        groups = speech.shape[1] // self.group  # a group that holds the end is predicted, never read
        columns = (hidden.shape[1] + 1, groups + 1)
        numbers = masks.row_numbers(*columns, device=hidden.device, group=self.group)
        rotary = self.rotary(self.positions(numbers, columns[0]))
        valid = (lengths.text + 1, lengths.speech // self.group + 1)
        # Padding sees itself: a row that sees nothing is not a number on some attention kernels.
        self_seen = torch.eye(len(numbers), dtype=torch.bool, device=hidden.device)

        def mask(depth: int) -> Tensor:
            seen = masks.training_mask(*valid, lengths.streaming, columns, self.chunks, self.compat, depth, self.group)
            return (seen | self_seen)[:, None]

        stacks = range(1 + len(self.extra))
        seen = [mask(depth) for depth in stacks] if RULES[self.compat].modules_look_ahead else [mask(0)] * len(stacks)
        count = torch.arange(speech.shape[1], device=speech.device)
        tokens = torch.where(count < lengths.speech[:, None], speech, self.pad)[:, : groups * self.group]
        tokens = pad(tokens, (self.group, 0), value=self.sos)
        bos = self.embedding(torch.full_like(tokens[:, :1], self.bos))
        return torch.cat([bos, self.project(hidden), self.embed(tokens)], dim=1), rotary, seen

    # --- shared by training and decoding ---------------------------------------------------------------------------

    @property
    def chunks(self) -> tuple[int, int]:
        """Text rows and speech tokens a chunk."""
        return self.settings.text_chunk, self.settings.speech_chunk

    def stack(self, depth: int) -> LayerStack:
        """The decoder (depth 0), or the layers of module `depth`."""
        return self.extra[depth - 1].stack if depth else self.decoder

    def positions(self, rows: Tensor, text_columns: int = 0) -> Tensor:
        """Rotary positions of row numbers, as `masks.positions` has them."""
        return masks.positions(rows, text_columns, self.compat, self.group)

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
        """See `Talker.begin`; with modules, the first `tokens_per_step` - 1 are used."""
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
