"""The talker's training forward against the released code's numbers (fixtures A), and the adaptor's (fixtures C)."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.numbers import CLOSE, FOLDER, arrays, cases, read_json, talker_of
from vocalnet_cli.core.config.schema import AdaptorSettings, ModelSettings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.adaptor import Adaptor
from vocalnet_cli.core.model.official_weights import load_official, official_to_ours, ours_to_official
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.talker.masks import training_mask

FILE, STATE, ADAPTOR = "talker_mtp.json", "talker_mtp_state.safetensors", "adaptor.json"
ABOUT = read_json(FILE)
CASES = ABOUT.get("cases", {})
EXPECTED, MASKS = (arrays(f"talker_mtp_{name}.npz") if ABOUT else {} for name in ("expected", "masks"))
ABOUT_ADAPTOR = read_json(ADAPTOR)


class Official:
    """The released code's inputs, and our talker with its weights."""

    def __init__(self) -> None:
        self.inputs = arrays("talker_mtp_inputs.npz")
        self.talker = talker_of(ABOUT["config"], STATE, "official")

    def batch(self, case: str) -> tuple[torch.Tensor, torch.Tensor, Lengths]:
        """Text rows as the released code picks them: labelled, end of turn left out, the last replaced by the end vector."""
        hidden, labels, speech = (self.inputs[k] for k in ("llm_hidden", "llm_labels", "speech_tokens"))
        ignore, end = (ABOUT["derived"][name] for name in ("label_ignore_index", "label_eot_id_llama"))
        rows = [states[(label != ignore) & (label != end)] for states, label in zip(hidden, labels, strict=True)]
        if CASES[case]["txt_eos_emb"]:
            rows = [torch.cat([states[:-1], self.inputs["txt_eos_emb"][0]]) for states in rows]
        lengths = Lengths(
            text=torch.tensor([len(states) for states in rows]),
            speech=(speech >= 0).sum(1),
            streaming=torch.tensor(CASES[case]["non_streaming_flags"]) == 0,
        )
        assert lengths.text.tolist() == CASES[case]["text_lens_after_filter"]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), speech, lengths


@pytest.fixture(scope="module")
def official() -> Official:
    return Official()


@pytest.mark.parametrize("case", cases([name for name in CASES if f"{name}.main_mask" in MASKS], "talker_mtp_masks.npz"))
def test_masks(official, case):
    hidden, speech, lengths = official.batch(case)
    columns = (hidden.shape[1] + 1, speech.shape[1] + 1)
    expected = [MASKS[f"{case}.main_mask"], *MASKS[f"{case}.mtp_masks"]]
    assert len(expected) == ABOUT["config"]["mtp_num"] + 1
    for depth, mask in enumerate(expected):
        arguments = (lengths.text + 1, lengths.speech + 1, lengths.streaming, columns, official.talker.chunks)
        assert torch.equal(training_mask(*arguments, "official", depth), mask), f"depth {depth}"


@pytest.mark.parametrize("case", cases(list(CASES), FILE))
@torch.no_grad()
def test_losses(official, case):
    loss = official.talker.loss(*official.batch(case))
    assert [float(head) for head in loss.heads] == pytest.approx(CASES[case]["head_losses"], abs=2e-5)
    assert float(loss.total) == pytest.approx(CASES[case]["loss"], abs=1e-4)


@pytest.mark.parametrize("case", cases([name for name, about in CASES.items() if about["txt_eos_emb"]][:1], FILE))
@torch.no_grad()
def test_projector(official, case):
    hidden, _, lengths = official.batch(case)
    valid = torch.arange(hidden.shape[1]) < lengths.text[:, None]
    torch.testing.assert_close(hidden[valid], EXPECTED["pre_nn_in"][valid], **CLOSE)
    torch.testing.assert_close(official.talker.project(hidden)[valid], EXPECTED["pre_nn_out"][valid], **CLOSE)


@pytest.mark.parametrize("case", cases([name for name in CASES if f"{name}.backbone_hidden" in EXPECTED], "talker_mtp_expected.npz"))
@torch.no_grad()
def test_backbone(official, case):
    """States after the last backbone layer, before its norm; text rows and speech rows of one sample."""
    hidden, speech, lengths = official.batch(case)
    seen: list[torch.Tensor] = []
    hook = official.talker.decoder.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    official.talker.scores(hidden, speech, lengths)
    hook.remove()
    sample, text = ABOUT["arrays_sample_index"], hidden.shape[1] + 1
    rows = [*range(int(lengths.text[sample]) + 1), *range(text, text + int(lengths.speech[sample]) + 1)]
    torch.testing.assert_close(seen[0][sample, rows], EXPECTED[f"{case}.backbone_hidden"][rows], **CLOSE)


@pytest.mark.parametrize("case", cases(list(CASES), FILE))
@torch.no_grad()
def test_logits(official, case):
    hidden, speech, lengths = official.batch(case)
    got = official.talker.scores(hidden, speech, lengths)
    sample, pad = ABOUT["arrays_sample_index"], official.talker.pad
    if f"{case}.logits_sample" in EXPECTED:
        rows = int(lengths.speech[sample]) + 1
        torch.testing.assert_close(got[0][sample, :rows], EXPECTED[f"{case}.logits_sample"][:rows], **CLOSE)
        return
    valid = EXPECTED["out_tokens"] != pad
    torch.testing.assert_close(got[0][valid], EXPECTED[f"{case}.logits"][valid], **CLOSE)
    for depth, labels in enumerate(EXPECTED["mtp_labels"]):
        valid = labels[sample] != pad
        torch.testing.assert_close(got[depth + 1][sample][valid], EXPECTED[f"{case}.mtp_logits"][depth][valid], **CLOSE)


@pytest.mark.parametrize("case", cases([name for name, about in CASES.items() if "grad_norm" in about], FILE))
def test_gradients(official, case):
    official.talker.zero_grad()
    official.talker.loss(*official.batch(case)).total.backward()
    gradients = {name: p.grad for name, p in official.talker.named_parameters()}
    norms = {name: float(grad.norm()) for name, grad in ours_to_official("talker", gradients, prefix="").items()}
    assert norms == pytest.approx(CASES[case]["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("index", cases(list(range(len(ABOUT_ADAPTOR.get("cases", [])))), ADAPTOR))
@torch.no_grad()
def test_adaptor(index):
    config, case = ABOUT_ADAPTOR["config"], ABOUT_ADAPTOR["cases"][index]
    adaptor = Adaptor(AdaptorSettings(stack=config["downsample_k"], hidden=config["hidden"]), config["encoder_dim"], config["llm_dim"])
    load_official(adaptor, "adaptor", load_file(FOLDER / "adaptor_state.safetensors"), prefix="")
    saved = arrays("adaptor_arrays.npz")
    torch.testing.assert_close(adaptor(saved[case["input"]]), saved[case["output"]], **CLOSE)


@pytest.mark.parametrize("row", cases(ABOUT_ADAPTOR.get("length_table", []), ADAPTOR))
def test_audio_embeddings_of_a_question(row, released):
    """How long a question is to the thinker, the released rounding (half to even) included; at most one window."""
    longest = released.encoder.max_source_positions // released.settings.adaptor.stack
    assert released.audio_length(row["raw_samples"]) == min(row["adaptor_frames"], longest)


@pytest.fixture(scope="module")
def released():
    with torch.device("meta"):
        return build_model(ModelSettings(compat="released"))


@pytest.mark.parametrize("file", cases([STATE] if ABOUT else [], STATE))
def test_names_go_both_ways_and_misfits_are_named(official, file):
    state = load_file(FOLDER / file)
    whole = {f"speech_generator.{name}": tensor for name, tensor in state.items()} | {"lm_head.weight": torch.zeros(1)}
    ours, unexpected = official_to_ours("talker", whole | {"speech_generator.rotary_emb.inv_freq": torch.zeros(1)})
    assert not unexpected and ours.keys() == official.talker.state_dict().keys()
    assert ours_to_official("talker", ours).keys() == whole.keys() - {"lm_head.weight"}
    broken = dict(whole)
    del broken["speech_generator.mtp_layers.2.norm_final.weight"]
    broken["speech_generator.odd.weight"] = torch.zeros(1)
    with pytest.raises(
        VocalnetError, match=r"missing speech_generator.mtp_layers.2.norm_final.weight, unexpected speech_generator.odd.weight"
    ):
        load_official(official.talker, "talker", broken)
