"""VocalNet-MDM: a talker that fills blocks of speech tokens in a few passes, by masked diffusion (arXiv 2602.08607)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vocalnet_cli.core.config.talker_schema import MdmSettings
from vocalnet_cli.core.model.cache import GrowingCache
from vocalnet_cli.core.model.talker import mdm_decoding, mdm_masks
from vocalnet_cli.core.model.talker.backbone import LayerStack, init_weights, rotary_table
from vocalnet_cli.core.model.talker.block_layers import BlockStack, FlexMask
from vocalnet_cli.core.model.talker.contract import Lengths, SpeechSampling, Talker, TalkerLoss

IGNORE = -100


@dataclass
class Masked:
    """A training batch, some of its tokens hidden."""

    tokens: Tensor
    """Long [B, L], L a multiple of the block: codes, EOS, and MASK for padding."""
    shown: Tensor
    """The same with the hidden tokens replaced by MASK (and some by wrong ones, if asked for)."""
    clean: Tensor
    """What later blocks see: `tokens`, some of them wrong if asked for."""
    targets: Tensor
    """Long [B, L]: the hidden tokens, IGNORE elsewhere."""

    def share(self, lengths: Lengths) -> Tensor | float:
        """The part of all targets that lie in this batch, where a mean is over more than it."""
        return 1.0 if lengths.targets is None else (self.targets != IGNORE).sum() / lengths.targets[0]


class MdmTalker(Talker):
    """Embeds tokens and MASK, adds each block's text states to its first tokens, and predicts all hidden tokens of a block at once."""

    def __init__(self, settings: MdmSettings, compat: str = "paper") -> None:
        super().__init__()
        self.settings = settings
        self.compat = compat
        self.eos, self.mask = settings.codes, settings.codes + 1
        self.attention = "sdpa"
        """`flex`: training in layout `doubled` leaves out the pairs that do not see each other."""
        self.embedding = nn.Embedding(settings.codes + 2, settings.hidden)
        self.text = nn.Linear(settings.text_hidden or settings.hidden, settings.hidden)
        self.projector = LayerStack(settings, settings.projector_layers)
        self.stack = BlockStack(settings)
        self.head = nn.Linear(settings.hidden, settings.codes + 1, bias=False)
        self.apply(init_weights)

    # --- training --------------------------------------------------------------------------------------------------

    def loss(self, hidden: Tensor, speech: Tensor, lengths: Lengths) -> TalkerLoss:
        """Cross-entropy of the hidden tokens; which are hidden follows from `lengths.draw`. The streaming flags change nothing."""
        masked = self.hide(speech, lengths)
        scores = self.scores(hidden, masked, lengths.text)
        loss = cross_entropy(scores.float().flatten(0, 1), masked.targets.flatten(), ignore_index=IGNORE)
        return TalkerLoss(loss * masked.share(lengths), [loss])

    def counts(self, speech: Tensor, lengths: Lengths) -> Tensor:
        """See `Talker.counts`; the same tokens are hidden each time if `lengths.draw` says which."""
        return (self.hide(speech, lengths).targets != IGNORE).sum()[None]

    def hide(self, speech: Tensor, lengths: Lengths) -> Masked:
        """Hide tokens [B, S] of each sample, EOS included, as `settings.masking` says and `lengths.draw` decides."""
        s = self.settings
        ended = torch.nn.functional.pad(speech, (0, -(speech.shape[1] + 1) % s.block + 1), value=self.mask)
        columns = torch.arange(ended.shape[1], device=speech.device)
        count = lengths.speech[:, None]
        tokens = torch.where(columns < count, ended, torch.where(columns == count, self.eos, self.mask))
        draws = lengths.draw.tolist() if lengths.draw is not None else torch.randint(2**31, (len(speech),)).tolist()
        hidden = np.zeros(tuple(tokens.shape), dtype=bool)
        wrong = np.zeros_like(hidden)
        other = np.zeros(tuple(tokens.shape), dtype=np.int64)
        for row, (draw, length) in enumerate(zip(draws, (lengths.speech + 1).tolist(), strict=True)):
            chance = np.random.default_rng((draw, length))
            hidden[row, :length] = mdm_masks.hidden_tokens(length, s, chance)
            if s.corrupt:
                wrong[row, : length - 1] = chance.random(length - 1) < s.corrupt
                other[row] = chance.integers(s.codes, size=len(other[row]))
        unseen = torch.from_numpy(hidden).to(tokens.device)
        clean = torch.where(torch.from_numpy(wrong).to(tokens.device), torch.from_numpy(other).to(tokens.device), tokens)
        return Masked(tokens, torch.where(unseen, self.mask, clean), clean, torch.where(unseen, tokens, IGNORE))

    def scores(self, hidden: Tensor, masked: Masked, text: Tensor) -> Tensor:
        """Logits [B, L, codes + 1] of every token given what is shown; `text` long [B] counts the real states of `hidden` [B, n, H]."""
        columns = mdm_masks.Columns(masked.shown.shape[1] // self.settings.block, self.settings.block, self.settings.slots)
        block = columns.block(hidden.device)
        states = self.project(hidden)
        noisy, there = self.inputs(masked.shown, states, text, columns)
        rotary = self.rotary(columns.position(device=hidden.device))
        if self.settings.layout == "single":
            mask = mdm_masks.block_causal(block)
            spoken = self.stack(noisy, rotary, (mask & there[:, None])[:, None])
        else:
            # Clean columns first: they are the silent ones.
            clean, _ = self.inputs(masked.clean, states, text, columns)
            seen: Tensor | FlexMask
            if self.attention == "flex":
                rule = mdm_masks.doubled_rule(block, there)
                seen = FlexMask.of(rule, len(there), 2 * len(block), len(block), hidden.device)
            else:
                mask = mdm_masks.doubled(block).roll((len(block), len(block)), (0, 1))
                seen = (mask & there.repeat(1, 2)[:, None])[:, None]
            twice = tuple(part.repeat(1, 2, 1) for part in rotary)
            spoken = self.stack(torch.cat([clean, noisy], dim=1), twice, seen, silent=len(block))
        return self.head(spoken[:, columns.is_token(hidden.device)])

    def refiner(self, hidden: Tensor, masked: Masked, text: Tensor) -> Callable[[Tensor], Tensor]:
        """`scores` for several guesses at what is hidden: shown tokens [B, L] to logits. In layout `doubled` the clean half, which no
        guess changes, is computed once."""
        if self.settings.layout == "single":
            return lambda shown: self.scores(hidden, replace(masked, shown=shown), text)
        columns = mdm_masks.Columns(masked.shown.shape[1] // self.settings.block, self.settings.block, self.settings.slots)
        block = columns.block(hidden.device)
        states, rotary, cache = self.project(hidden), self.rotary(columns.position(device=hidden.device)), GrowingCache()
        clean, there = self.inputs(masked.clean, states, text, columns)
        self.stack(clean, rotary, (mdm_masks.block_causal(block) & there[:, None])[:, None], cache, len(block))
        mask = mdm_masks.doubled(block).roll((len(block), len(block)), (0, 1))[len(block) :]
        seen = (mask & there.repeat(1, 2)[:, None])[:, None]

        def scores(shown: Tensor) -> Tensor:
            cache.truncate(len(block))
            spoken = self.stack(self.inputs(shown, states, text, columns)[0], rotary, seen, cache)
            return self.head(spoken[:, columns.is_token(hidden.device)])

        return scores

    # --- shared by training and decoding ---------------------------------------------------------------------------

    def project(self, hidden: Tensor, cache: GrowingCache | None = None) -> Tensor:
        """Thinker states [B, n, text_hidden] that follow those in `cache`, at the talker's width."""
        states = self.text(hidden.to(self.text.weight.dtype))
        if not len(self.projector.layers):
            return states
        start = cache.get_seq_length() if cache is not None else 0
        rows = torch.arange(start, start + hidden.shape[1], device=hidden.device)
        keys = torch.arange(start + hidden.shape[1], device=hidden.device)
        return self.projector(states, self.rotary(rows), (keys <= rows[:, None])[None, None], cache)

    def inputs(self, tokens: Tensor, states: Tensor, text: Tensor, columns: mdm_masks.Columns, start: int = 0) -> tuple[Tensor, Tensor]:
        """Embeddings [B, N, H] of the blocks `start` ... with their anchors, and bool [B, N]: what may be seen (empty slots may not)."""
        s = self.settings
        rows, there = mdm_masks.anchors(states, text, columns, s.text_chunk, start)
        embedded = self.embedding(tokens).unflatten(1, (columns.blocks, s.block))
        everything = torch.ones(*tokens.shape[:1], columns.blocks, s.block, dtype=torch.bool, device=tokens.device)
        if s.anchors == "slot":
            return torch.cat([rows, embedded], dim=2).flatten(1, 2), torch.cat([there, everything], dim=2).flatten(1, 2)
        embedded = embedded + torch.nn.functional.pad(rows, (0, 0, 0, s.block - s.text_chunk))
        return embedded.flatten(1, 2), everything.flatten(1, 2)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary table [1, N, d] of positions [N]."""
        return rotary_table(positions, self.settings.hidden // self.settings.heads, self.embedding.weight.dtype)

    # --- decoding --------------------------------------------------------------------------------------------------

    def begin(
        self, batch: int = 1, streaming: bool = True, tokens_per_step: int = 1, sampling: SpeechSampling | None = None
    ) -> mdm_decoding.BlockState:
        """State of a new answer. How many passes a block takes is `sampling.steps`; `tokens_per_step` is of the other talkers."""
        return mdm_decoding.begin(self, batch, sampling or SpeechSampling())

    @torch.no_grad()
    def step(self, state: mdm_decoding.BlockState, hidden: Tensor | None, last: bool, limit: int | None = None) -> Tensor:
        """See `Talker.step`. A block is spoken as soon as its text states are there."""
        return mdm_decoding.step(self, state, hidden, last, limit)

    @torch.no_grad()
    def speak(
        self, hidden: Tensor, lengths: Tensor, streaming: bool, tokens_per_step: int, sampling: SpeechSampling | None = None
    ) -> list[list[int]]:
        """See `Talker.speak`."""
        return mdm_decoding.speak(self, hidden, lengths, sampling or SpeechSampling())
