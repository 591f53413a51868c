"""`vocalnet eval report`: a page that is complete, tells what happened, and whose sound plays."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import soundfile

from tests.chromium import needs_chromium, play
from tests.runs import RULE, question, write_results
from vocalnet_cli.core.evaluation.results import Judging, Verdict

LONG = "cember" * 100
"""A word that would push the verdicts out of sight."""
MARKED = Judging(judge="qwen-max", scale="0-10", prompt="vocalnet-1/open")


class Page(HTMLParser):
    """What a page refers to, and the text of each row."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.rows: dict[str, str] = {}
        self.marks: dict[str, str] = {}
        self.players: dict[str, list[str]] = {}
        self._row: str | None = None
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.links += [str(told[name]) for name in ("src", "href") if name in told]
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "tr" and "id" in told:
            self._row = str(told["id"])
            self.rows[self._row], self.marks[self._row], self.players[self._row] = "", str(told["data-verdicts"]), []
        if tag == "audio" and self._row is not None:
            self.players[self._row].append(str(told["src"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        self._row = None if tag == "tr" else self._row

    def handle_data(self, data: str) -> None:
        if self._row is not None:
            self.rows[self._row] += data


@pytest.fixture
def results(tmp_path) -> Path:
    """Right, wrong, without a verdict, failed, cut off; text that looks like HTML."""
    folder = tmp_path / "results"
    rows = [
        question(folder, 0, right=(1, 1)),
        question(folder, 1, right=(1, 0), seconds=0.6),
        question(folder, 2, verdicts={"s2t": Verdict(value=None, failure="no reply could be read", reply="<b>hm</b>")}, truncated=True),
        question(folder, 3, text="", heard=None, audio=None, verdicts={}, error="AudioError: silence"),
        question(folder, 4, question='Is <script>alert("x")</script> & "y"?', text=f"It is <b>not</b>. {LONG}", heard="it is knot"),
    ]
    marked = [question(folder, 5, right=(8, 3), verdicts={"s2t": Verdict(value=8), "s2s": Verdict(value=3, reply="Rating: [[3]]")})]
    scores = {"n": 4, "failed": 1, "accuracy": {"s2t": 75.0, "s2s": 50.0}, "ci": {"s2t": [50.0, 90.0], "s2s": [30.0, 70.0]}}
    other = {"n": 1, "failed": 0, "score": {"s2t": 8.0, "s2s": 3.0}, "ci": {"s2t": [8.0, 8.0], "s2s": [3.0, 3.0]}}
    judging = {"digits": RULE, "open": MARKED}
    return write_results(folder, {"digits": scores, "open": other}, {"digits": rows, "open": marked}, judging=judging)


def test_every_link_of_the_page_resolves_inside_its_folder(vocalnet, results, tmp_path):
    out = tmp_path / "elsewhere"
    result = vocalnet("eval", "report", results, "-o", out, "--json")
    assert result.code == 0, result.err
    made = Path(json.loads(result.out)["page"])
    moved = tmp_path / "moved"
    shutil.move(out, moved)
    shutil.rmtree(results)
    page = Page(moved / made.name)
    assert page.open == [] and len(page.links) == 5 + 6, "an answer each but the failed one, a question each"
    for link in page.links:
        parts = urlsplit(link)
        assert not parts.scheme and not parts.netloc and not parts.path.startswith("/")
        sound = (moved / unquote(parts.path)).resolve()
        assert sound.is_relative_to(moved.resolve()) and soundfile.info(sound).frames > 0


def test_a_row_tells_question_answer_transcript_and_verdict(vocalnet, results):
    assert vocalnet("eval", "report", results).code == 0
    page = Page(results / "page" / "index.html")
    told = page.rows["q1"]
    for text in ("What is 1 plus one?", "expected: 2", "1 plus one is 2.", "text: right", "speech: wrong", "0.6 s"):
        assert text in told
    assert len(page.players["q1"]) == 2 and page.marks["q1"] == "s2s-bad" and page.marks["q0"] == ""
    assert "no verdict: no reply could be read" in page.rows["q2"] and "<b>hm</b>" in page.rows["q2"] and page.marks["q2"] == "none cut"
    assert "AudioError: silence" in page.rows["q3"] and len(page.players["q3"]) == 1 and page.marks["q3"] == "none"
    assert '<script>alert("x")</script>' in page.rows["q4"], "shown as it is, not run"
    assert "8 of 10" in page.rows["q5"] and "3 of 10" in page.rows["q5"] and page.marks["q5"] == "s2s-bad"
    source = (results / "page" / "index.html").read_text()
    assert "<ins>knot</ins>" in source and "<script>alert" not in source and "pocketsphinx 5.1.1" in source


def test_other_or_missing_sound_is_told(vocalnet, results):
    (results / "audio/a0.wav").write_bytes((results / "audio/a1.wav").read_bytes())
    result = vocalnet("eval", "report", results)
    assert result.code == 1 and "a0.wav: not the sound that was judged" in result.err
    (results / "audio/a0.wav").unlink()
    assert "the sound of question q0 is missing" in vocalnet("eval", "report", results).err
    assert "report.json: cannot be read" in vocalnet("eval", "report", results / "audio").err


@needs_chromium
def test_every_sound_plays_in_chromium(vocalnet, results, tmp_path):
    vocalnet("eval", "report", results)
    assert play(results / "page" / "index.html", tmp_path / "profile") == "played 11"
