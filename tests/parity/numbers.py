"""The released code's saved numbers: where they lie, and the talkers that should reproduce them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings
from vocalnet_cli.core.model.official_weights import load_official
from vocalnet_cli.core.model.talker import build_talker
from vocalnet_cli.core.model.talker.contract import Talker

CLOSE = dict(atol=1e-4, rtol=1e-4)
FOLDER = Path(os.environ.get("VOCALNET_FIXTURES", Path(__file__).parents[1] / "assets" / "fixtures")) / "vocalnet"


def read_json(name: str) -> dict[str, Any]:
    """A description of `FOLDER`, or nothing if the folder lacks it: then `cases` skips by that name."""
    path = FOLDER / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def cases(found: list[Any], name: str, arguments: int = 1) -> list[Any]:
    """Parameters of a test that needs file `name`; one skipped case that names it when the folder lacks it."""
    missing = pytest.param(*[None] * arguments, marks=pytest.mark.skip(reason=f"{FOLDER} lacks {name}"), id=f"no-{name}")
    return found or [missing]


def arrays(name: str) -> dict[str, torch.Tensor]:
    """The tensors of one .npz file."""
    with np.load(FOLDER / name, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def talker_settings(config: dict[str, Any]) -> MtpVocalnetSettings:
    """Our settings of a talker the released code describes."""
    return MtpVocalnetSettings(
        hidden=config["llm_hidden_size"],
        ffn=config["decoder_ffn_dim"],
        heads=config["decoder_num_heads"],
        projector_layers=config["encoder_num_layers"],
        decoder_layers=config["decoder_num_layers"],
        codes=config["unit_vocab_size"],
        dropout=config["decoder_dropout"],
        modules=config["mtp_num"],
        text_chunk=config["txt_token_num"],
        speech_chunk=config["speech_token_num"],
    )


def talker_of(config: dict[str, Any], state: str, compat: str) -> Talker:
    """A talker with the saved weights."""
    talker = build_talker(talker_settings(config), compat).eval()
    load_official(talker, "talker", load_file(FOLDER / state), prefix="")
    return talker
