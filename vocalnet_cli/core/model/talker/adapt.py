"""Talkers that start from another: what both have is taken over, and training makes the rest of it.

A masked-diffusion talker can start from one that speaks from left to right, as text diffusion models start from causal ones
(arXiv 2410.17891), and a talker of any kind from one that speaks other speech tokens.

Layers, projector, embeddings and output rows have the same shapes in both. The left-to-right decoder reads text in rows of its own
before the speech, the blocks have it added to their first tokens; a state there predicts the next token, here the hidden one it
stands at. Both are learned soon: after 600 steps of nano/ablation-mdm the loss is below that of 1200 steps from nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.talker.autoregressive import AutoregressiveTalker
from vocalnet_cli.core.model.talker.contract import Talker
from vocalnet_cli.core.model.talker.mdm import MdmTalker

_MOST_SPECIAL = 4
"""Special tokens beside the codes, at most."""
_LAYER = {
    "before_attention": ("input_layernorm",),
    "before_mlp": ("post_attention_layernorm",),
    "query": ("self_attn.q_proj",),
    "key_value": ("self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Weights of a block layer, and of a Llama layer those that it holds one after the other."""


@torch.no_grad()
def adapt(source: Talker, target: MdmTalker, where: str) -> None:
    """Copy into `target` what it has in common with `source`, a talker of another kind found at `where`.

    MASK starts as the mean of all codes. Thinker states pass unchanged where the widths allow it, else through the linear map that is
    there. Prediction modules, BOS, SOS and the head's bias are left behind. Raises VocalnetError if `source` scores groups of tokens,
    or the sizes differ.
    """
    if not isinstance(source, AutoregressiveTalker) or source.group != 1:
        kind = type(source).__name__.removesuffix("Talker")
        raise VocalnetError(
            f"init.talker is {where}: a talker of kind {kind}, from which masked diffusion cannot start",
            "Name the folder of an mdm, ntp or mtp-* talker in init.talker, or leave it out.",
        )
    found = _as_blocks(source, target.settings.codes)
    own = target.state_dict()
    wrong = [name for name in own if not name.startswith("text.") and (name not in found or found[name].shape != own[name].shape)]
    wrong += [name for name in found if name not in own]
    if wrong or source.settings.codes != target.settings.codes:
        raise VocalnetError(
            f"init.talker is {where}: the sizes of its layers are not the recipe's ({len(wrong)} tensors differ)",
            f"Set model.talker.decoder_layers to {source.settings.decoder_layers}, projector_layers to {source.settings.projector_layers}, "
            f"hidden to {source.settings.hidden}, ffn to {source.settings.ffn}, codes to {source.settings.codes}.",
        )
    target.load_state_dict(found, strict=False)
    if target.text.in_features == target.text.out_features:
        torch.nn.init.eye_(target.text.weight)
        torch.nn.init.zeros_(target.text.bias)


@torch.no_grad()
def recode(source: Talker, target: Talker, old: int, new: int, where: str) -> None:
    """Copy `source`, found at `where`, into `target` of the same kind and sizes that speaks other speech tokens: `new` instead of `old`.

    Layers and special tokens are taken over. What is known of the old tokens says nothing of the new ones but their mean, around which
    they start as drawn. Raises VocalnetError if more than the tokens differs.
    """
    theirs, own = source.state_dict(), target.state_dict()
    found, wrong = {}, []
    for name, drawn in own.items():
        known = theirs.get(name)
        if known is not None and known.shape == drawn.shape:
            found[name] = known
        elif known is not None and known.shape[1:] == drawn.shape[1:] and (at_once := _at_once(len(known), len(drawn), old, new)):
            was, is_now = (rows.unflatten(0, (at_once, -1)) for rows in (known, drawn))
            middle = was[:, :old].mean(1, keepdim=True)
            found[name] = torch.cat([middle + is_now[:, :new], was[:, old:]], dim=1).flatten(0, 1)
        else:
            wrong.append(name)
    if wrong or own.keys() != theirs.keys():
        raise VocalnetError(
            f"init.talker is {where}: not the recipe's talker with other speech tokens ({len(wrong) or 'other'} tensors differ)",
            "Change the sizes in model.talker to those of the folder's config.json.",
        )
    target.load_state_dict(found)


def _at_once(known: int, drawn: int, old: int, new: int) -> int:
    """Tokens that a table of `known` rows scores, if one of `drawn` rows scores as many of the new tokens; else 0."""
    at_once, rest = divmod(drawn - known, new - old)
    if at_once < 1 or rest or known % at_once:
        return 0
    return at_once if old <= known // at_once <= old + _MOST_SPECIAL else 0


def _as_blocks(source: AutoregressiveTalker, codes: int) -> dict[str, Tensor]:
    """The weights of `source` under the names of MdmTalker."""
    theirs = source.state_dict()
    found = {name: tensor for name, tensor in theirs.items() if name.startswith("projector.")}
    for layer in range(source.settings.decoder_layers):
        for name, parts in _LAYER.items():
            weights = [theirs[f"decoder.layers.{layer}.{part}.weight"] for part in parts]
            found[f"stack.layers.{layer}.{name}.weight"] = torch.cat(weights)
    embedding, head = theirs["embedding.weight"], theirs["head.weight"]
    found["stack.norm.weight"] = theirs["norm.weight"]
    end = slice(source.eos, source.eos + 1)
    found["embedding.weight"] = torch.cat([embedding[:codes], embedding[end], embedding[:codes].mean(0, keepdim=True)])
    found["head.weight"] = torch.cat([head[:codes], head[end]])
    return found
