"""A speech LLM of the true classes, so small that it answers in milliseconds. Its weights are random: it babbles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vocalnet_cli.core.config.schema import AdaptorSettings, EncoderSettings, ModelSettings, ThinkerSettings
from vocalnet_cli.core.config.vocoder_schema import GriffinLimSettings
from vocalnet_cli.core.model.folder import PARTS
from vocalnet_cli.core.model.speech_llm import SpeechLLM, build_model
from vocalnet_cli.core.model.tokenizer import train_tokenizer
from vocalnet_cli.core.model.weights import save_model
from vocalnet_cli.core.units import QUESTION_HZ

TEXTS = ["three plus five is eight", "what is the capital of France", "the café is open – 你好 🎉", "twenty minus seven"]
CODES = 16
WINDOW_S = 2.0


MTP = {"kind": "mtp-vocalnet", "modules": 2}


def tiny_settings(vocab: int, width: int = 32, talker: Mapping[str, object] = MTP, codes: int = CODES) -> ModelSettings:
    """Sizes of the tiny model; `width` is that of every part, `talker` its kind and what only this kind has.

    With other than CODES `codes` it has no vocoder.
    """
    sizes = dict(hidden=width, ffn=2 * width, heads=2, projector_layers=1, decoder_layers=1, codes=codes, dropout=0.0)
    return ModelSettings(
        encoder=EncoderSettings(hidden=width, layers=1, heads=2, ffn=2 * width, mel_bins=80, window_s=WINDOW_S, padding="fit"),
        adaptor=AdaptorSettings(hidden=width),
        thinker=ThinkerSettings(
            hidden=width, layers=2, heads=2, kv_heads=1, ffn=2 * width, vocab=vocab, tied=False, max_positions=1024, system_prompt=""
        ),
        talker={**sizes, **talker},
        vocoder=GriffinLimSettings(codes=CODES, iterations=2) if codes == CODES else None,
    )


def tiny_model(seed: int = 0, talker: Mapping[str, object] = MTP, codes: int = CODES) -> SpeechLLM:
    """A random tiny model with a byte-level tokenizer. It never ends its text by itself: only the limit ends it."""
    tokenizer = train_tokenizer(TEXTS, 300, "llama")
    torch.manual_seed(seed)
    model = build_model(tiny_settings(len(tokenizer), talker=talker, codes=codes))
    model.tokenizer = tokenizer
    model.eval().requires_grad_(False)
    model.thinker.get_output_embeddings().weight[list(model.end_ids)] = 0.0  # logit 0 never wins among hundreds of random ones
    return model


def save_tiny(folder: Path, seed: int = 0, talker: Mapping[str, object] = MTP, codes: int = CODES, **generation: object) -> Path:
    """A tiny model as a folder that `--model` takes; `generation` is what its config.json says about answers."""
    save_model(tiny_model(seed, talker, codes), folder, set(PARTS), generation=dict(generation))
    return folder


def tone(seconds: float = 0.5, hz: float = 300.0, rate: int = QUESTION_HZ) -> np.ndarray:
    """A quiet tone with a little noise, mono float32."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(scale=0.01, size=len(t))
    return (0.3 * np.sin(2 * np.pi * hz * t) + noise).astype(np.float32)


def save_tiny_whisper(folder: Path) -> Path:
    """An English Whisper of two layers that knows single letters, as a folder that `--asr` takes; its weights are random."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

    vocab = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyzĠ")}
    vocab |= {token: len(vocab) + number for number, token in enumerate(("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"))}
    WhisperProcessor(WhisperFeatureExtractor(), WhisperTokenizer(vocab=vocab, merges=[])).save_pretrained(folder)
    sizes = dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    ids = dict(bos_token_id=27, eos_token_id=27, pad_token_id=27, decoder_start_token_id=28, suppress_tokens=[], begin_suppress_tokens=[])
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(vocab), encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=20, **sizes, **ids)
    model = WhisperForConditionalGeneration(config)
    model.generation_config.update(is_multilingual=False, no_timestamps_token_id=29, max_length=12, **ids)
    model.save_pretrained(folder)
    return folder
