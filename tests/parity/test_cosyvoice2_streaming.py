"""Upstream's streaming runs, chunk by chunk, out of our modules; and our cached pass against its single masked pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.cosyvoice2 import LOOKAHEAD, equal_blocks, known_mel, meta, names, sound, tensors, tiny_flow, tiny_hift, upstream_flow

MEL, SOUND = 2e-4, 5e-4
ABOUT = meta("streaming_meta")
RUNS = [tag for tag in ABOUT if tag in {n.partition(".")[0] for n in names("streaming")}]
CHUNKS = [(tag, i) for tag in RUNS for i in range(len(ABOUT[tag]))]
KEPT = 8
"""Mel frames upstream keeps for the next call of HiFT."""


def close(found: torch.Tensor, wanted: torch.Tensor, limit: float) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max().item() <= limit


def block_of(tag: str) -> int:
    settings = ABOUT["settings"].get(tag, ABOUT.get(f"{tag}_feed"))
    return settings["encoder_static_chunk"]


@torch.no_grad()
def chunk_mel(tag: str, index: int) -> torch.Tensor:
    """New frames of one of upstream's chunks, recomputed from the start as it does."""
    data, about = tensors("streaming"), ABOUT[tag][index]
    block = None if about["streaming_flag"] is False else block_of(tag)
    tokens = data["token"][0, : about["tokens_passed"]]
    mel = upstream_flow(data, tokens, block, about["finalize"], old=tag != "new")
    assert mel.shape[-1] == about["flow_mel_frames"]
    return mel[:, :, 2 * about["token_offset"] :]


@pytest.mark.parametrize(("tag", "index"), CHUNKS)
def test_chunk_mel(tag, index):
    close(chunk_mel(tag, index), tensors("streaming")[f"{tag}.chunk{index}.flow_mel"], MEL)


@pytest.mark.parametrize(("tag", "index"), CHUNKS)
@torch.no_grad()
def test_chunk_sound(tag, index):
    data, hift = tensors("streaming"), tiny_hift(tag == "new")
    name = f"{tag}.chunk{index}"
    mel, kept, cached, faded = data[f"{name}.flow_mel"], data[f"{name}.flow_mel"][..., :0], None, None
    for before in range(index):  # what upstream's caches hold when this chunk comes
        earlier = data[f"{tag}.chunk{before}.flow_mel"]
        heard = torch.cat([kept, earlier], dim=-1)
        wav, made = sound(hift, heard, cached)
        if faded is not None:
            wav = fade(wav, faded)
        kept, cached, faded = heard[..., -KEPT:], made[..., -480 * KEPT :], wav[:, -480 * KEPT :]
    mel = torch.cat([kept, mel], dim=-1)
    wav, made = sound(hift, mel, cached)
    for part, value in (("hift_mel", mel), ("source", made), ("raw_wav_before_fade", wav)):
        if f"{name}.{part}" in data:
            close(value, data[f"{name}.{part}"], SOUND)
    if faded is not None:
        wav = fade(wav, faded)
    out = wav if ABOUT[tag][index]["finalize"] else wav[:, : -480 * KEPT]
    close(out, data[f"{name}.wav"], SOUND)


def fade(wav: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    window = torch.from_numpy(np.hamming(2 * before.shape[1])).float()
    half = before.shape[1]
    return torch.cat([wav[:, :half] * window[:half] + before * window[half:], wav[:, half:]], dim=1)


@pytest.mark.parametrize("tag", [tag for tag in RUNS if f"{tag}.offline.mel" in names("streaming")])
@torch.no_grad()
def test_offline(tag):
    data = tensors("streaming")
    tokens = data["token"][0, : data[f"{tag}.offline.mel"].shape[-1] // 2]
    mel = upstream_flow(data, tokens, None if tag == "new" else block_of(tag), finalize=True, old=tag != "new")
    close(mel, data[f"{tag}.offline.mel"], MEL)
    close(sound(tiny_hift(tag == "new"), data[f"{tag}.offline.mel"])[0], data[f"{tag}.offline.wav"], SOUND)


@torch.no_grad()
def test_cached_chunks_make_upstreams_single_masked_pass():
    data, flow, block = tensors("streaming"), tiny_flow(), block_of("new")
    prompt, feat = data["prompt_token"].shape[1], data["prompt_feat"]
    ids = torch.cat([data["prompt_token"], data["token"]], dim=1)
    wanted = data["new.singlepass_chunkmask.mel"]
    ends = [0] + [prompt + about["tokens_passed"] - (0 if about["finalize"] else LOOKAHEAD) for about in ABOUT["new"]]
    state, pieces = flow.begin(data["embedding"][0]), []
    mel = F.pad(known_mel(feat, feat.shape[1]), (0, 2 * ids.shape[1] - feat.shape[1]))
    for start, end in zip(ends, ends[1:], strict=False):
        cut = slice(2 * start, 2 * end)
        blocks = equal_blocks(end - start, block)
        pieces.append(flow.extend([state], ids[:, start : end + LOOKAHEAD], blocks, mel[:, :, cut], data["rand_noise"][:, :, cut]))
    close(torch.cat(pieces, dim=-1)[:, :, feat.shape[1] :], wanted, MEL)
