"""Earlier turns in training: what the thinker reads of a row is what it reads when it answers in that conversation."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import MTP, tiny_model, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.config.schema import DataSettings, GenerationSettings, Recipe
from vocalnet_cli.core.data.record import HistoryTurn, Record, Utterance, write_manifest
from vocalnet_cli.core.generation.clock import Clock
from vocalnet_cli.core.generation.memory import Memory, Turn
from vocalnet_cli.core.generation.streaming import _Thinker
from vocalnet_cli.core.model.thinker import last_hidden, text_logits
from vocalnet_cli.core.training.stages.align import AlignStage
from vocalnet_cli.core.training.stages.asr_pretrain import AsrPretrainStage
from vocalnet_cli.core.training.stages.heard import HEARD
from vocalnet_cli.core.training.stages.lm import LmStage
from vocalnet_cli.core.training.stages.speak import SpeakStage
from vocalnet_cli.core.training.stages.stage import DEV_DRAW
from vocalnet_cli.core.units import QUESTION_HZ

SOUNDS = {"a.wav": tone(0.5, 300.0), "b.wav": tone(0.9, 500.0)}
EARLIER = [
    HistoryTurn(role="user", text="twenty minus seven"),
    HistoryTurn(role="assistant", text="twenty"),
    HistoryTurn(role="user", text="three plus five", audio="a.wav"),
    HistoryTurn(role="assistant", text="is eight"),
    HistoryTurn(role="user", text="what is the <speech>capital"),
    HistoryTurn(role="assistant", text="café 🎉"),
]


@pytest.fixture
def stage(tmp_path):
    """Builds a stage over two rows, one of them with three earlier turns: one heard, two read."""
    for name, samples in SOUNDS.items():
        write_wav(tmp_path / name, samples, QUESTION_HZ)
    row = {"source": "s", "split": "train", "answer": Utterance(text="three"), "speech_tokens": [1, 2, 3]}
    rows = [
        Record(id="alone", question=Utterance(text="plus five", audio="a.wav"), **row),
        Record(id="later", question=Utterance(text="is eight", audio="b.wav"), history=EARLIER, round=4, **row),
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)

    def build(kind, talker=MTP, **data):
        model = tiny_model(talker=talker)
        settings = DataSettings(manifest=str(tmp_path / "manifest.jsonl"), **data)
        made = kind(Recipe(model=model.settings, data=settings, init={"tokenizer": "here"}), model, tmp_path / "cache", ())
        made.load_examples()
        return made.eval()

    return build


@torch.inference_mode()
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("history", [0, 2])
def test_training_reads_what_answering_reads(stage, history, cache):
    made = stage(AlignStage, history=history, cache=cache)
    batch = made.collate([(example, DEV_DRAW) for example in made.examples])
    spliced = made.splice(**batch)
    scores = text_logits(made.model.thinker, last_hidden(made.model.thinker, spliced.embeds, spliced.mask))
    sounds = {name: made.model.hear([samples])[0] for name, samples in SOUNDS.items()}
    turns = {"alone": [], "later": [Turn(sounds["a.wav"], "is eight", 1), Turn("what is the capital", "café 🎉", 2)][:history]}
    for row, (name, sound) in enumerate({"alone": "a.wav", "later": "b.wav"}.items()):
        memory = Memory(made.model, turns=2)
        memory.turns, memory._count = turns[name], 2
        wanted, _ = memory.listen(sounds[sound], 12)
        assert spliced.answer_at[row] == memory.prompt_rows
        torch.testing.assert_close(scores[row, spliced.answer_at[row] - 1], wanted[0], atol=2e-3 if cache else 1e-5, rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("reads_tokens", [False, True])
def test_the_talker_learns_from_what_it_reads_in_an_answer(stage, reads_tokens):
    made = stage(SpeakStage, talker={**MTP, "reads_tokens": reads_tokens})
    batch = made.collate([(example, DEV_DRAW) for example in made.examples])
    learned = made._talker_rows(*made._read_answers(**{name: batch[name] for name in ("prompts", "answers", "heard", "heard_lengths")}))
    settings = GenerationSettings(max_text_tokens=12)
    for row, name in enumerate(("a.wav", "b.wav")):
        thinker = _Thinker(made.model, settings, Clock(made.model.device), None, Memory(made.model))
        thinker.listen(SOUNDS[name])
        ids = batch["answers"][row].tolist()[:-1]  # its end is not read
        read = torch.cat([*(thinker.told(token)[0] for token in ids), made.model.end_vector()[0]])
        torch.testing.assert_close(learned[row, : len(read)], read, atol=2e-4, rtol=1e-3)
        plain = thinker.state[0, -1]
        assert torch.equal(read[-2], plain) is not reads_tokens


def test_where_questions_are_written_so_are_the_earlier_ones(stage):
    written = stage(AlignStage, history=3, questions="written")
    lm = stage(LmStage, history=3)
    for (source, _), (ids, prompt) in zip(written.examples, lm.examples, strict=True):
        assert source.ids.tolist() == ids[:prompt] and HEARD not in ids
    told = written.model.tokenizer.decode(written.examples[1][0].ids)
    assert [told.count(text) for text in ("twenty minus seven", "three plus five", "is eight", "the capital")] == [1, 1, 2, 1]


def test_what_is_transcribed_stands_alone(stage):
    made = stage(AsrPretrainStage, history=3)
    assert made.examples[0][0].ids.equal(made.examples[1][0].ids)
