"""The whole model against the official code's numbers: every saved run of fixtures D, loaded as a released checkpoint, and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.parity.numbers import CLOSE, arrays, cases, read_json
from tests.parity.released_folder import write_folder
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.generation.segments import FILLER, Groups, cut
from vocalnet_cli.core.generation.speaker import speak_whole, speech_sampling
from vocalnet_cli.core.generation.text import decode
from vocalnet_cli.core.model.folder import read_config
from vocalnet_cli.core.model.prompt import sentence_end_ids
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.model.weights import load_model

ABOUT = {family: about for family in ("llama", "qwen") if (about := read_json(f"full_{family}.json"))}
NAMES = "full_llama.json, full_qwen.json"
MODES = ("train_nonstreaming", "train_streaming", "train_mixed")
WRITTEN = [(f, name, i) for f, about in ABOUT.items() for name, run in about["generate"].items() for i in range(len(run["runs"]))]
STREAMED = [(f, name) for f, about in ABOUT.items() for name in about["stream"]]
LABEL_FILTER = 128009
"""The end-of-turn id the released talker leaves out of its text; in Qwen it is an ordinary token (fixtures' README, section D)."""


class Official:
    """A whole model of the fixtures, loaded as a user's checkpoint would be, with the released code's inputs and outputs."""

    def __init__(self, family: str, folder: Path) -> None:
        self.about: dict[str, Any] = ABOUT[family]
        self.arrays = arrays(f"full_{family}_arrays.npz")
        self.folder = write_folder(self.about, folder / "checkpoint", shards=3)
        self.released = load_model(self.folder)
        self.model = build_model(read_config(self.folder)["model"].model_copy(update={"compat": "official"})).eval()
        self.model.load_state_dict(self.released.state_dict())
        self.model.tokenizer = self.released.tokenizer

    @torch.no_grad()
    def prompt(self, name: str, mel_length: int) -> Tensor:
        """Embeddings [1, L, H] of a saved prompt with its speech in place."""
        states = self.model.encoder.encode(self.arrays[f"{name}.mel"].transpose(1, 2), torch.tensor([mel_length]))
        speech = self.model.adaptor(states)[:, : (mel_length + 1) // 2 // self.model.adaptor.stack]
        ids = self.arrays[f"{name}.input_ids"][0]
        at = int((ids == self.about["ids"]["speech_placeholder"]).nonzero())
        return torch.cat([self.model.embed(ids[:at]), speech, self.model.embed(ids[at + 1 :])], dim=1)

    def write(self, embeds: Tensor, most: int):
        """Yields (token id, state [1, 1, H] that predicted it): greedy, the stop included, at most `most`."""
        cache = self.model.new_cache()
        logits, states = self.model.read(embeds, cache)
        for _ in range(most):
            token = int(logits.argmax())
            yield token, states[:, -1:]
            if token == self.about["ids"]["end_of_turn_id"]:
                return
            logits, states = self.model.read(self.model.embed([token]), cache)

    def sampling(self, streaming: bool, most: int):
        """The released code's own penalty, and the saved run's limit."""
        settings = GenerationSettings(streaming=streaming, max_speech_tokens=most)
        return speech_sampling(self.model, settings, None)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    models: dict[str, Official] = {}

    def get(family: str) -> Official:
        if family not in models:
            models[family] = Official(family, tmp_path_factory.mktemp(family))
        return models[family]

    return get


@pytest.mark.parametrize("family", cases(list(ABOUT), NAMES))
@torch.no_grad()
def test_encoder_and_adaptor(loaded, family):
    official = loaded(family)
    batch, model = official.about["batch"], official.model
    states = model.encoder.encode(official.arrays["batch.mel"].transpose(1, 2), torch.tensor(batch["mel_lengths"]))
    assert_close(states, official.arrays["batch.encoder_out"], **CLOSE)
    features = model.adaptor(states)
    for row, count in enumerate(batch["adaptor_lengths"]):
        assert_close(features[row, :count], official.arrays[f"batch.speech_features{row}"], **CLOSE)


@pytest.mark.parametrize("family", cases(list(ABOUT), NAMES))
@torch.no_grad()
def test_speech_is_spliced_into_the_prompt(loaded, family):
    official = loaded(family)
    saved, model = official.arrays, official.model
    for row, mask in enumerate(saved["batch.spliced_attention_mask"].bool()):
        ids = saved["batch.input_ids"][row][saved["batch.attention_mask"][row].bool()]
        at = int((ids == official.about["ids"]["speech_placeholder"]).nonzero())
        pieces = [model.embed(ids[:at])[0], saved[f"batch.speech_features{row}"], model.embed(ids[at + 1 :])[0]]
        assert_close(torch.cat(pieces), saved["batch.inputs_embeds"][row][mask], **CLOSE)
    assert_close(model.end_vector(), saved["batch.txt_eos_emb"])


@pytest.mark.parametrize("family", cases(list(ABOUT), NAMES))
@torch.no_grad()
def test_thinker_states_logits_and_loss(loaded, family):
    official = loaded(family)
    saved, model = official.arrays, official.model
    mask = saved["batch.spliced_attention_mask"].bool()
    hidden = last_hidden(model.thinker, saved["batch.inputs_embeds"], mask)
    logits = text_logits(model.thinker, hidden)
    assert_close(hidden[mask], saved["batch.last_hidden"][mask], **CLOSE)
    assert_close(logits[mask], saved["batch.logits"][mask], **CLOSE)
    assert_close(hidden[mask], saved["batch.talker_hidden_in"][mask], **CLOSE)
    labels = saved["batch.spliced_labels"]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(loss) == pytest.approx(official.about["batch"]["lm_loss_eval"], abs=2e-5)


@pytest.mark.parametrize("family, mode", cases([(f, mode) for f in ABOUT for mode in MODES], NAMES, 2))
@torch.no_grad()
def test_losses_of_stage_2_and_joint(loaded, family, mode):
    official = loaded(family)
    saved, batch = official.arrays, official.about["batch"]
    ignore = official.about["ids"]["ignore_index"]
    left_out = official.about["replaced_constants"].get(str(LABEL_FILTER), LABEL_FILTER)
    rows = []
    for hidden, labels in zip(saved["batch.talker_hidden_in"], saved["batch.spliced_labels"], strict=True):
        rows.append(torch.cat([hidden[(labels != ignore) & (labels != left_out)][:-1], saved["batch.txt_eos_emb"][0]]))
    units = saved["batch.tgt_units"]
    lengths = Lengths(lengths_of(rows), (units >= 0).sum(1), torch.tensor(batch[mode]["non_streaming_flags"]) == 0)
    loss = official.model.talker.loss(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), units, lengths)
    assert float(loss.total) == pytest.approx(batch[mode]["talker_only_loss"], abs=1e-4)
    joint = batch["lm_loss_eval"] + official.about["gen_loss_weight"] * float(loss.total)
    assert joint == pytest.approx(batch[mode]["joint_loss"], abs=1e-4)


def lengths_of(rows: list[Tensor]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


@pytest.mark.parametrize("family", cases(list(ABOUT), NAMES))
@torch.no_grad()
def test_reading_in_steps_equals_reading_at_once(loaded, family):
    official = loaded(family)
    count = int(official.arrays["batch.spliced_attention_mask"][0].sum())
    embeds = official.arrays["batch.inputs_embeds"][:1, :count]
    cache = official.model.new_cache()
    parts = [official.model.read(part, cache)[1] for part in embeds.split([7, 1, 1, count - 9], dim=1)]
    assert_close(torch.cat(parts, dim=1), last_hidden(official.model.thinker, embeds), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family, name, index", cases(WRITTEN, NAMES, 3))
@torch.no_grad()
def test_a_written_then_spoken_answer(loaded, family, name, index):
    official = loaded(family)
    about = official.about["generate"][name]
    run, model = about["runs"][index], official.model
    answer = list(official.write(official.prompt(name, about["speech_lengths"][0]), about["max_new_tokens"]))
    ids = [token for token, _ in answer]
    assert ids == about["text_ids"]
    states = torch.cat([state for _, state in answer], dim=1)
    extra = run["infer_mtp_token_num"]
    sampling = official.sampling(False, run["unit_max_tokens"])
    if extra == 0:  # the released code then takes `predict`, which has no penalty and does not count SOS
        sampling.repetition_window, sampling.max_speech_tokens = 0, run["unit_max_tokens"] + 1
    units, codes = [], []
    segments = cut(ids, sentence_end_ids(model.tokenizer), broken=True)
    assert [b - a + 1 for a, b in segments] == run["segment_lengths_with_txt_eos"]
    for number, (start, stop) in enumerate(segments):
        text = torch.cat([states[:, start:stop], model.end_vector()], dim=1)
        assert_close(text, official.arrays[f"{name}.talker_in_segment{number}"], **CLOSE)
        tokens = model.talker.step(model.talker.begin(1, False, extra + 1, sampling), text, True).tolist()
        units += tokens[:-1]
        codes += [token for token in tokens[: sampling.max_speech_tokens] if token < model.talker.bos]
    assert [model.talker.sos, *units, model.talker.eos] == run["units"]
    # Under `released` the same segments are spoken, in one batch, to their very last token; an answer of two tokens is one segment.
    settings = GenerationSettings(tokens_per_step=extra + 1, streaming=False)
    spoken = speak_whole(official.released, [(states, ids)], settings, sampling)[0]
    assert len(spoken) >= len(codes) and (not segments or len(segments) > 1 or spoken[: len(codes)] == codes)


@pytest.mark.parametrize("family, name", cases(STREAMED, NAMES, 2))
@torch.no_grad()
def test_a_streamed_answer(loaded, family, name):
    official = loaded(family)
    about, model = official.about["stream"][name], official.model
    sampling = official.sampling(True, about["unit_max_tokens"])
    stop_id = official.about["ids"]["end_of_turn_id"]

    def begin():
        return model.talker.begin(1, True, about["infer_mtp_token_num"] + 1, sampling)

    groups = Groups(about["txt_token_num"], lambda ids: decode(model.tokenizer, ids), about["reset_interval"], broken=True)
    waiting: list[Tensor] = []
    ids: list[int] = []
    calls, yields, talker = [], [], begin()
    written = official.write(official.prompt(name, about["speech_lengths"][0]), about["max_len"] + 1)
    for token, state in [*written, (stop_id, model.end_vector())]:  # beyond the longest text the turn is ended by force
        waiting.append(state)
        ids.append(token)
        for call in groups.push(token, token == stop_id):
            if call.filler:
                yields.append({"text_ids": None, "units": [FILLER], "is_last": True})
                continue
            text = torch.cat([*waiting, model.end_vector()] if call.end else waiting, dim=1) if call.count else None
            calls.append({"n_hidden": None if text is None else text.shape[1], "is_last": call.last})
            units = model.talker.step(talker, text, call.last).tolist()
            last = call.last and not call.restart
            yields.append({"text_ids": None if text is None else ids, "units": [units[:-1] if call.last else units], "is_last": last})
            waiting, ids = [], []
            talker = begin() if call.restart else talker
        if token == stop_id:
            break
    assert calls == about["talker_calls"]
    assert yields == about["yields"]
