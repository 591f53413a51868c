"""The whole model against the official code's numbers: encoder, adaptor, thinker states and loss (fixtures D), prompts (fixtures E)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from vocalnet_cli.core.config.schema import AdaptorSettings, EncoderSettings, ModelSettings, ThinkerSettings
from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings
from vocalnet_cli.core.model.prompt import render_prompt
from vocalnet_cli.core.model.speech_llm import SpeechLLM, build_model
from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.units import ENCODER_HOP, ENCODER_STRIDE, QUESTION_HZ


def settings_of(meta: dict) -> ModelSettings:
    llm, whisper, talker = meta["llm_config"], meta["whisper_encoder_config"], meta["talker_config"]
    return ModelSettings(
        compat="official",
        encoder=EncoderSettings.model_construct(  # as many mel bins as the tiny fixture has
            hidden=whisper["d_model"],
            layers=whisper["encoder_layers"],
            heads=whisper["encoder_attention_heads"],
            ffn=whisper["encoder_ffn_dim"],
            mel_bins=whisper["num_mel_bins"],
            window_s=whisper["max_source_positions"] * ENCODER_STRIDE * ENCODER_HOP / QUESTION_HZ,
        ),
        adaptor=AdaptorSettings(stack=meta["adaptor"]["downsample_k"], hidden=meta["adaptor"]["hidden"]),
        thinker=ThinkerSettings(
            family="llama" if meta["family"] == "llama" else "qwen2",
            hidden=llm["hidden_size"],
            layers=llm["num_hidden_layers"],
            heads=llm["num_attention_heads"],
            kv_heads=llm["num_key_value_heads"],
            ffn=llm["intermediate_size"],
            vocab=llm["vocab_size"],
            tied=llm["tie_word_embeddings"],
            rope_theta=llm["rope_theta"],
            rope_scaling=llm.get("rope_scaling"),
            norm_eps=llm["rms_norm_eps"],
            max_positions=llm["max_position_embeddings"],
        ),
        talker=MtpVocalnetSettings(
            hidden=talker["llm_hidden_size"],
            ffn=talker["decoder_ffn_dim"],
            heads=talker["decoder_num_heads"],
            projector_layers=talker["encoder_num_layers"],
            decoder_layers=talker["decoder_num_layers"],
            codes=talker["unit_vocab_size"],
            modules=talker["mtp_num"],
        ),
    )


def load(model: SpeechLLM, state: dict[str, torch.Tensor]) -> None:
    """The official tensors by their own names; talker names are the business of test_talker."""
    encoder, adaptor = "model.speech_encoder.", "model.speech_projector."
    model.encoder.load_state_dict({k.removeprefix(encoder): v for k, v in state.items() if k.startswith(encoder)})
    model.adaptor.load_state_dict({k.removeprefix(adaptor): v for k, v in state.items() if k.startswith(adaptor)})
    rest = {k: v for k, v in state.items() if not k.startswith((encoder, adaptor, "speech_generator."))}
    missing = model.thinker.load_state_dict(rest, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}


@pytest.fixture(params=["llama", "qwen"])
def official(request: pytest.FixtureRequest, fixtures_dir: Path) -> tuple[dict, dict, SpeechLLM]:
    name = fixtures_dir / "vocalnet" / f"full_{request.param}"
    meta = json.loads(name.with_suffix(".json").read_text())
    with np.load(f"{name}_arrays.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    model = build_model(settings_of(meta))
    load(model, load_file(f"{name}_state.safetensors"))
    return meta, arrays, model.eval()


@torch.no_grad()
def test_encoder_and_adaptor(official: tuple) -> None:
    meta, arrays, model = official
    lengths = torch.tensor(meta["batch"]["mel_lengths"])
    states = model.encoder.encode(arrays["batch.mel"].transpose(1, 2), lengths)
    assert_close(states, arrays["batch.encoder_out"], atol=1e-4, rtol=1e-4)
    features = model.adaptor(states)
    for row, count in enumerate(meta["batch"]["adaptor_lengths"]):
        assert_close(features[row, :count], arrays[f"batch.speech_features{row}"], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_thinker_states_logits_and_loss(official: tuple) -> None:
    meta, arrays, model = official
    mask = arrays["batch.spliced_attention_mask"].bool()
    hidden = last_hidden(model.thinker, arrays["batch.inputs_embeds"], mask)
    logits = text_logits(model.thinker, hidden)
    assert_close(hidden[mask], arrays["batch.last_hidden"][mask], atol=1e-4, rtol=1e-4)
    assert_close(logits[mask], arrays["batch.logits"][mask], atol=1e-4, rtol=1e-4)
    labels = arrays["batch.spliced_labels"]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(loss) == pytest.approx(meta["batch"]["lm_loss_eval"], abs=2e-5)


@torch.no_grad()
def test_reading_in_steps_equals_reading_at_once(official: tuple) -> None:
    _, arrays, model = official
    embeds = arrays["batch.inputs_embeds"][:1, : int(arrays["batch.spliced_attention_mask"][0].sum())]
    cache = model.new_cache()
    parts = [model.read(part, cache)[1] for part in embeds.split([7, 1, 1, embeds.shape[1] - 9], dim=1)]
    assert_close(torch.cat(parts, dim=1), last_hidden(model.thinker, embeds), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mel_frames_of", [(8000, 5), (16000, 10), (16160, 10), (160000, 100), (480000, 300), (496000, 300)])
def test_audio_embeddings_of_released_models(mel_frames_of: tuple[int, int]) -> None:
    """Lengths of the released pipeline, its half-to-even rounding included (vocalnet.md, section 2)."""
    samples, expected = mel_frames_of
    with torch.device("meta"):
        model = build_model(ModelSettings(compat="released"))
    assert model.audio_length(samples) == expected


@pytest.mark.parametrize("template", ["llama3.2", "llama3.0", "qwen2.5"])
def test_prompts_read_as_in_training(fixtures_dir: Path, template: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    meta = json.loads((fixtures_dir / "vocalnet" / "prompts.json").read_text())
    case = next(case for case in meta["cases"] if case["name"] == f"{template}.train.one_turn")
    prompt_text = case["text"].partition("<speech>")[0]
    inner = Tokenizer(models.WordLevel({"x": 0, "<unk>": 1}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<|begin_of_text|>")
    tokenizer.chat_template = meta["chat_templates"][template]
    seen: list[str] = []
    tokenizer.__class__ = type(
        "Spy", (PreTrainedTokenizerFast,), {"__call__": lambda self, text, **_: seen.append(text) or {"input_ids": [0]}}
    )
    render_prompt(tokenizer, "qwen2" if template.startswith("qwen") else "llama", None)
    assert seen[0] == prompt_text
