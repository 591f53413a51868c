"""`vocalnet train` through the command: every nano stage in a row, a killed run that ends like a straight one, and mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import save_tiny, tiny_settings
from tests.train_runs import DIGITS, ROOT, WORDS, metrics, parts, recipe
from vocalnet_cli.core.model.speech_tokenizer import SpeechTokenizer


def test_every_stage_in_a_row_makes_a_model_that_answers(corpus: Path, vocalnet: Callable) -> None:
    for stage in ("lm", "encoder", "encoder-words", "speech-tokenizer", "hift", "flow", "mtp5-written", "align", "align-joint", "mtp5"):
        made = recipe(corpus, stage, flow=True)
        result = vocalnet("train", "--recipe", made, "-o", f"runs/nano/{stage}", "--device", "cpu", "--json")
        assert result.code == 0, result.err
        told = json.loads(result.out)
        assert told["steps"] == 3 and Path(told["model"]).is_dir()
        assert json.loads((Path(told["model"]) / "config.json").read_text())["recipe"] == stage
        lines = [line for line in metrics(corpus / "runs" / "nano" / stage) if "loss" in line]
        assert [line["step"] for line in lines] == [1, 2, 3]
        assert set(lines[0]) - {"terms"} == {"step", "epoch", "loss", "lr", "tokens_per_s", "eta_s"}
        assert (corpus / "runs" / "nano" / stage / "recipe.yaml").is_file()
        assert "packages" in json.loads((corpus / "runs" / "nano" / stage / "origin.json").read_text())
    answer = vocalnet("infer", DIGITS / "3_jackson_10.wav", "--model", "runs/nano/mtp5/model", "-o", "answers", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["tokens"]["speech"] > 0
    # Frozen parts stay as they were: the encoder that answers is that of the last stage that taught it.
    second, third, joint, last = (
        load_file(f"runs/nano/{stage}/model/encoder.safetensors") for stage in ("encoder-words", "align", "align-joint", "mtp5")
    )
    assert all(second[name].equal(third[name]) and joint[name].equal(last[name]) for name in second)
    assert not all(third[name].equal(joint[name]) for name in third)


def changed(before: dict, after: dict) -> set[str]:
    """Parts whose weights a run changed."""
    return {part for part in after if part in before and any(not before[part][key].equal(after[part][key]) for key in after[part])}


def test_the_stages_of_tables_3_and_4_train_what_their_rows_say(corpus: Path, vocalnet: Callable) -> None:
    for stage in ("lm", "encoder", "speech-tokenizer"):
        assert vocalnet("train", "--recipe", recipe(corpus, stage), "-o", f"runs/nano/{stage}", "--device", "cpu").code == 0
    origin = {"tokenizer": "lm", "thinker": "lm", "encoder": "encoder", "adaptor": "encoder", "vocoder": "speech-tokenizer"}
    start_from = {part: f"runs/nano/{stage}/model" for part, stage in origin.items()}
    rate = {"lr": 0.01, "warmup": 0.0, "schedule": "constant"}

    def run(name: str, output: str, told: str, *more: str, **init: str) -> dict:
        given = [f"--set=init.{part}={where}" for part, where in {**start_from, **init}.items()]
        result = vocalnet("train", "--recipe", recipe(corpus, name, **rate), *given, "-o", output, "--device", "cpu", "--json", *more)
        assert result.code == 0, result.err
        assert told in result.err, result.err
        return parts(output)

    first = {part: load_file(f"{where}/{part}.safetensors") for part, where in start_from.items() if part != "tokenizer"}
    heard = run("ablation-asr-pretrain", "asr", "adaptor")
    assert changed(first, heard) == {"adaptor"}
    one = run("ablation-t4-one-stage", "joint", "stage joint")
    assert changed(first, one) == {"adaptor", "thinker"} and "talker" in one
    repeated = run("ablation-tts-pretrain", "tts", "stage tts-pretrain")
    assert changed(first, repeated) == {"thinker"} and set(repeated) >= {"encoder", "adaptor", "talker"}
    after = run("ablation-t3-tts", "speak", "stage speak", thinker="tts/model", talker="tts/model")
    assert changed(repeated, after) == {"talker", "thinker"}
    answer = vocalnet("infer", DIGITS / "3_jackson_10.wav", "--model", "joint/model", "-o", "answers", "--json")
    assert answer.code == 0, answer.err


def load_model_talker(result: Any, run: str) -> torch.Tensor:
    assert result.code == 0, result.err
    return load_file(f"{run}/model/talker.safetensors")["head.weight"]


def test_a_masked_diffusion_talker_is_trained_distilled_and_answers(corpus: Path, vocalnet: Callable) -> None:
    for stage in ("lm", "encoder", "speech-tokenizer", "mtp5-written"):
        assert vocalnet("train", "--recipe", recipe(corpus, stage), "-o", f"runs/nano/{stage}", "--device", "cpu").code == 0
    origin = {"tokenizer": "lm", "thinker": "lm", "encoder": "encoder", "adaptor": "encoder", "vocoder": "speech-tokenizer"}
    start_from = [f"--set=init.{part}=runs/nano/{stage}/model" for part, stage in origin.items()]
    left_to_right = "--set=init.talker=runs/nano/mtp5-written/model"
    for stage, talker in (("mdm-written", (left_to_right,)), ("mdm", ())):
        told = vocalnet("train", "--recipe", recipe(corpus, stage), *start_from, *talker, "-o", f"runs/nano/{stage}", "--json")
        assert told.code == 0, told.err
    unlearned = vocalnet("distill", "--recipe", recipe(corpus, "mdm-distill"), *start_from, left_to_right, "-o", "out")
    assert unlearned.code == 1 and "not a masked-diffusion talker" in unlearned.err
    command = ("distill", "--recipe", recipe(corpus, "mdm-distill"), *start_from, "--set=distill.rounds=2", "-o", "out", "--json")
    told = vocalnet(*command)
    assert told.code == 0, told.err
    assert json.loads(told.out)["rounds"] == 2
    trained = [load_file(f"{run}/model/talker.safetensors") for run in ("runs/nano/mdm", "out/round-1", "out")]
    assert not any(torch.equal(a["head.weight"], b["head.weight"]) for a, b in zip(trained, trained[1:], strict=False))
    before = (corpus / "out/round-1/model/talker.safetensors").stat().st_mtime_ns
    shutil.rmtree(corpus / "out/model")
    assert vocalnet(*command, "--resume").code == 0  # the first round is kept, the second ends as it did
    assert (corpus / "out/round-1/model/talker.safetensors").stat().st_mtime_ns == before
    assert torch.equal(load_file("out/model/talker.safetensors")["head.weight"], trained[2]["head.weight"])
    kept = ("--set=distill.rounds=1", "--set=distill.cached_masks=2", "--set=distill.cached_codes=8", "-o")
    runs = [load_model_talker(vocalnet(*command[:-3], *kept, where), where) for where in ("kept", "again")]
    files = list((corpus / "cache").glob("targets-*"))
    assert len(files) == 1 and torch.equal(*runs) and not torch.equal(runs[0], trained[1]["head.weight"])
    question, counts = DIGITS / "3_jackson_10.wav", {}
    for steps in ("1", "4", "auto"):
        answer = vocalnet("infer", question, "--model", "out/model", "--steps", steps, "-o", "answers", "--json")
        assert answer.code == 0, answer.err
        counts[steps] = json.loads(answer.out)["tokens"]["speech"]
    assert all(0 < count <= 20 for count in counts.values())
    wrong = vocalnet("infer", question, "--model", "out/model", "--steps", "17")
    assert wrong.code == 1 and wrong.err.splitlines()[0].startswith("steps is 17") and len(wrong.err.splitlines()) == 2
    assert vocalnet("distill", "--recipe", recipe(corpus, "mtp5")).code == 1


def test_cached_and_computed_features_train_alike(corpus: Path, vocalnet: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("lm", "encoder", "encoder-words", "speech-tokenizer", "mtp5-written", "align", "align-joint", "hift", "flow"):
        assert vocalnet("train", "--recipe", recipe(corpus, stage), "-o", f"runs/nano/{stage}", "--device", "cpu").code == 0
    losses = []
    for name, cache in (("first", "true"), ("again", "true"), ("computed", "false")):
        with monkeypatch.context() as patch:
            if name == "again":
                patch.delattr(SpeechTokenizer, "encode")  # nothing is made a second time
            train = ("train", "--recipe", recipe(corpus, "mtp5", steps=1), "--set", f"data.cache={cache}")
            told = vocalnet(*train, "-o", corpus / name, "--json")
        assert told.code == 0, told.err
        losses.append(json.loads(told.out)["loss"])
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[2], rel=2e-3)  # the cache holds half precision


def test_a_talker_of_a_new_kind_learns_its_answers_by_heart(corpus: Path, vocalnet: Callable) -> None:
    model = save_tiny(corpus / "start")
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["speech_tokens"] = [(5 * number + 3 * place * place) % 16 for place in range(11 + number)]
    (corpus / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    vocab = json.loads((model / "config.json").read_text())["model"]["thinker"]["vocab"]
    settings = {
        "stage": "speak",
        "model": tiny_settings(vocab, talker={"kind": "mtp-deepseek", "modules": 2}).model_dump(mode="json"),
        "init": {part: "start" for part in ("tokenizer", "encoder", "adaptor", "thinker", "vocoder")},
        "data": {"manifest": "manifest.jsonl", "max_question_s": 2, "max_answer_s": 15 / 25},
        "train": {"steps": 60, "batch_size": 6, "lr": 1e-2, "log_every": 10, "save_every": 60, "eval_every": 60},
        "generation": {"max_text_tokens": 6, "max_speech_tokens": 20, "tokens_per_step": 3},
    }
    (corpus / "deepseek.yaml").write_text(json.dumps(settings))
    told = vocalnet("train", "--recipe", "deepseek.yaml", "-o", "run", "--device", "cpu", "--json", "--cache-frozen", "kept")
    assert told.code == 0, told.err
    assert json.loads(told.out)["left_out"] == 3 and "5 rows" in told.err  # 16, 17 and 18 tokens long
    assert {path.parent.name.split("-")[0] for path in (corpus / "kept").rglob("*.safetensors")} == {"heard", "read"}
    losses = [line["loss"] for line in metrics(corpus / "run") if "loss" in line]
    assert losses[0] > 2 and losses[-1] < 0.05 * losses[0], losses
    answer = vocalnet("infer", DIGITS / "3_jackson_10.wav", "--model", "run/model", "-o", "answers", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["tokens"]["speech"] > 0 and (corpus / "answers/3_jackson_10.wav").is_file()
    refused = vocalnet("train", "--recipe", "deepseek.yaml", "--set", "generation.tokens_per_step=4", "-o", "other")
    assert refused.code == 1 and "at most 3 with model.talker.modules 2" in refused.err


def test_parts_start_from_a_folder_in_the_released_layout(corpus: Path, vocalnet: Callable) -> None:
    save_tiny(corpus / "ours")
    assert vocalnet("models", "export", "ours", "-o", "theirs", "--dtype", "fp32").code == 0
    vocab = json.loads((corpus / "ours" / "config.json").read_text())["model"]["thinker"]["vocab"]
    settings = {
        "stage": "speak",
        "model": tiny_settings(vocab).model_dump(mode="json"),
        "data": {"manifest": "manifest.jsonl", "max_question_s": 2},
        "train": {"steps": 1, "batch_size": 6, "log_every": 1},
    }
    losses = []
    talker = settings["model"]["talker"]
    in_blocks = {key: talker[key] for key in ("hidden", "ffn", "heads", "projector_layers", "decoder_layers", "codes")} | {"kind": "mdm"}
    for where, kind in (("ours", talker), ("theirs", talker), ("ours", in_blocks), ("theirs", in_blocks)):
        settings["model"]["talker"] = kind
        settings["init"] = {part: where for part in ("tokenizer", "encoder", "adaptor", "thinker", "talker")} | {"vocoder": "ours"}
        (corpus / "speak.yaml").write_text(json.dumps(settings))
        told = vocalnet("train", "--recipe", "speak.yaml", "-o", f"{kind['kind']}-from-{where}", "--device", "cpu", "--json")
        assert told.code == 0, told.err
        losses.append(json.loads(told.out)["loss"])
    assert losses[0] == losses[1] != losses[2] == losses[3]
    wrong = vocalnet("train", "--recipe", "speak.yaml", "-o", "x", "--set", "model.adaptor.hidden=16")
    assert wrong.code == 1 and len(wrong.err.strip().splitlines()) == 2 and "theirs" in wrong.err


def start(path: Path, run: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "vocalnet_cli", "train", "--recipe", str(path), "-o", run, "--device", "cpu", "--quiet", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def wait_for(run: Path, step: int, process: subprocess.Popen) -> None:
    """Until a whole checkpoint of `step` is there."""
    for _ in range(1200):
        if (run / "checkpoints" / f"checkpoint-{step}" / "complete.json").is_file():
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


def test_a_killed_run_resumed_ends_like_a_straight_one(corpus: Path) -> None:
    path = recipe(corpus, "lm", steps=60, save_every=10, log_every=5, eval_every=60)
    straight = start(path, "straight")
    killed = start(path, "killed")
    wait_for(corpus / "killed", 20, killed)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    # A kill in the middle of a save leaves a folder without its mark: it must not be trusted.
    (corpus / "killed" / "checkpoints" / "checkpoint-59").mkdir()
    resumed = start(path, "killed", "--resume")
    assert resumed.wait() == 0, resumed.stderr.read() if resumed.stderr else ""
    assert straight.wait() == 0
    losses = [[(m["step"], m["loss"]) for m in metrics(corpus / run) if "loss" in m] for run in ("straight", "killed")]
    assert losses[0] == losses[1] and losses[0][-1][0] == 60
    ours, theirs = (load_file(corpus / run / "model" / "thinker.safetensors") for run in ("straight", "killed"))
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_the_targets_of_a_step_weigh_alike_however_it_is_cut(corpus: Path, vocalnet: Callable) -> None:
    """Six rows at once, two batches of three summed, and two processes with three each: the same step."""
    for stage in ("lm", "speech-tokenizer"):
        assert vocalnet("train", "--recipe", recipe(corpus, stage), "-o", f"runs/nano/{stage}", "--device", "cpu").code == 0
    common = {"streaming_share": 1.0, "lr": 0.01, "warmup": 0.0, "eval_every": 9}
    more = ("--set", "model.talker.dropout=0", "--set", "data.train_splits=[train]", "--device", "cpu")
    runs = {"whole": (6, 1, False), "summed": (3, 2, False), "processes": (3, 1, True)}
    for name, (rows, batches, two) in runs.items():
        path = recipe(corpus, "mtp5-written", batch_size=rows, accumulate=batches, **common)
        if not two:
            assert vocalnet("train", "--recipe", path, "-o", name, *more).code == 0
            continue
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vocalnet_cli", "train"]
        done = subprocess.run(
            [*command, "--recipe", str(path), "-o", name, "--json", *more],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout)["steps"] == 3
    path = recipe(corpus, "mtp5-written", frozen_dtype="bf16", dtype="bf16", gradient_checkpointing=True, **common)
    assert vocalnet("train", "--recipe", path, "-o", "half", *more).code == 0
    losses = {name: [line["loss"] for line in metrics(corpus / name) if "loss" in line] for name in runs}
    talkers = {name: parts(name)["talker"] for name in runs}
    for name in ("summed", "processes"):
        # The Trainer writes four digits.
        assert losses[name] == pytest.approx(losses["whole"], rel=1e-3)
        for key, tensor in talkers["whole"].items():
            torch.testing.assert_close(talkers[name][key], tensor, rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(corpus: Path, vocalnet: Callable) -> None:
    assert vocalnet("train", "--recipe", recipe(corpus, "lm"), "-o", "runs/nano/lm", "--device", "cpu").code == 0
    often = {"save_every": 2, "log_every": 2, "eval_every": 99}
    start_from = ("--recipe", recipe(corpus, "encoder", steps=4, **often), "-o", "run", "--device", "cpu")
    assert vocalnet("train", *start_from).code == 0
    recipe(corpus, "encoder", steps=40, **often)
    failed = vocalnet("train", *start_from, "--set", "data.augment.noise=1e39", "--resume", "--quiet")
    assert failed.code == 1
    problem, hint = failed.err.strip().splitlines()
    assert "the loss is" in problem and any(word in problem for word in WORDS)
    assert "step 4 is kept" in hint
    kept = sorted(int(mark.parent.name.split("-")[1]) for mark in (corpus / "run").glob("checkpoints/*/complete.json"))
    assert kept == [2, 4]


def test_the_last_steps_are_told_wherever_a_run_ends(corpus: Path, vocalnet: Callable) -> None:
    told = {}
    for often, wanted in ((2, [2, 3]), (3, [3]), (99, [3])):
        path = recipe(corpus, "lm", steps=3, log_every=often, eval_every=99)
        done = vocalnet("train", "--recipe", path, "-o", f"run{often}", "--device", "cpu", "--json")
        lines = [line for line in metrics(corpus / f"run{often}") if "loss" in line]
        assert [line["step"] for line in lines] == wanted
        told[often] = json.loads(done.out)["loss"]
        assert told[often] == lines[-1]["loss"]
    assert told[99] == told[3]


def test_checkpointed_layers_and_a_budget_of_tokens_train_and_leave_a_card(corpus: Path, vocalnet: Callable) -> None:
    losses = []
    for name, more in {"plain": {}, "again": {"gradient_checkpointing": True}, "budget": {"tokens_per_batch": 60}}.items():
        told = vocalnet(
            "train", "--recipe", recipe(corpus, "lm", **more), "-o", name, "--device", "cpu", "--json", "--log-to", "tensorboard"
        )
        assert told.code == 0, told.err
        losses.append(json.loads(told.out)["loss"])
        assert list((corpus / name).rglob("events.out.tfevents*"))
    assert losses[0] == losses[1]
    card = (corpus / "plain" / "model" / "README.md").read_text()
    assert "stage lm, 6 rows" in card and "sha256" in card and "thinker" in card
    wrong = vocalnet("train", "--recipe", recipe(corpus, "lm"), "-o", "other", "--log-to", "paper")
    assert wrong.code == 2 and len(wrong.err.strip().splitlines()) == 2


def test_a_few_rows_are_learned_by_heart_or_named(corpus: Path, vocalnet: Callable) -> None:
    path = recipe(corpus, "lm", overfit_steps=60, lr=0.02)
    learned = vocalnet("train", "--recipe", path, "--overfit", "2", "--device", "cpu", "--json", "--quiet")
    assert learned.code == 0, learned.err
    told = json.loads(learned.out)
    assert told["rows"] == 2 and told["loss"] < 0.5 and not (corpus / "runs").exists()
    path = recipe(corpus, "lm", overfit_steps=1)
    failed = vocalnet("train", "--recipe", path, "--overfit", "3", "--device", "cpu", "--quiet")
    assert failed.code == 1 and len(failed.err.strip().splitlines()) == 2 and "worst: " in failed.err
    assert any(word in failed.err for word in WORDS[:3])


def test_a_signal_saves_and_exits_130(corpus: Path) -> None:
    path = recipe(corpus, "lm", steps=5000, save_every=20)
    process = start(path, "run")
    wait_for(corpus / "run", 20, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(told.strip().splitlines()) == 2 and "--resume" in told
    steps = [int(p.parent.name.split("-")[1]) for p in (corpus / "run").glob("checkpoints/*/complete.json")]
    assert max(steps) % 20 or len(steps) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "mtp5"], ["nano/mtp5"]),
        (["--recipe", "align-1b"], ["Llama-3.2-1B-Instruct", "--recipe nano/align"]),
        (["--recipe", "deepseek3"], ["runs/vocalnet/align-1b/model", "nano/ablation-deepseek3"]),
        (["--recipe", "nano/base"], ["no stage"]),
        (["--recipe", "nano/lm", "--set", "data.manifest=none.jsonl"], ["none.jsonl"]),
        (["--recipe", "nano/align"], ["nano/lm"]),
        (["--recipe", "nano/lm", "--set", "train.parts=[encoder]"], ["train.parts", "thinker"]),
        (["--recipe", "nano/lm", "--set", "train.stepz=3"], ["train.stepz", "train.steps"]),
    ],
)
def test_mistakes_end_in_two_lines(corpus: Path, vocalnet: Callable, arguments: list[str], words: list[str]) -> None:
    result = vocalnet("train", *arguments)
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 2
    assert all(word in result.err for word in words)


def test_a_folder_with_a_run_is_not_overwritten(corpus: Path, vocalnet: Callable) -> None:
    path = recipe(corpus, "lm", steps=2)
    assert vocalnet("train", "--recipe", path, "-o", "run").code == 0
    again = vocalnet("train", "--recipe", path, "-o", "run")
    assert again.code == 1 and "--resume" in again.err


def test_dry_run_counts_without_weights(vocalnet: Callable) -> None:
    told = json.loads(vocalnet("train", "--recipe", "mtp5", "--dry-run", "--json").out)
    assert told["trainable"] == pytest.approx(832.4e6, rel=1e-3)  # arXiv 2504.04060 checkpoints: the 1B talker
    assert set(told) >= {"trainable", "total", "memory_gb", "tokens_per_step", "fits"}
    assert told["parts"]["talker"]["learns"] == told["trainable"] and told["parts"]["encoder"]["learns"] == 0
    large = json.loads(vocalnet("train", "--recipe", "mtp5", "--dry-run", "--json", "--set", "train.frozen_dtype=fp32").out)
    assert large["memory_gb"] - told["memory_gb"] == pytest.approx(2 * (told["total"] - told["trainable"]) / 1e9, rel=1e-3)
    other = vocalnet("train", "--recipe", "vocalnet/speak-8b", "--dry-run", "--json")
    assert json.loads(other.out)["trainable"] == pytest.approx(3141.2e6, rel=1e-3)  # and that of the 8B
