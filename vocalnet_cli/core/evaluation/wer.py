"""An independent recogniser for what was said, and its word errors."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jiwer
import numpy as np

from vocalnet_cli.core.audio.wav import resample
from vocalnet_cli.core.data.synth.questions import domain_vocabulary, spoken_words
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation.normaliser import english
from vocalnet_cli.core.units import QUESTION_HZ

NORMALISER = "lower case, punctuation to spaces, words that sound alike are one"

_PAD_S = 0.3
"""Silence at both ends, without which the recogniser swallows the first and last sounds."""
_HEADROOM = 0.9
_WARP = "1.18"
"""Factor on the frequency axis (vocal tract length normalisation) for the one voice that answers. Chosen on recordings of training
answers: word errors 13.3 % at 1, 9.9 at 1.12, 9.7 at 1.16, 8.9 at 1.2 (526 words). The same for recordings and for models."""


@dataclass(frozen=True)
class WordErrors:
    """Differences between what was meant and what was heard, in words."""

    words: int
    sub: int
    ins: int
    dele: int

    @property
    def total(self) -> int:
        return self.sub + self.ins + self.dele


def words_of(text: str, alike: Mapping[str, str] | None = None) -> list[str]:
    """A text as the words one hears; `alike` maps a word to the spelling that stands for all that sound the same."""
    return [alike.get(word, word) for word in spoken_words(text)] if alike else spoken_words(text)


def word_errors(meant: str, heard: str, alike: Mapping[str, str] | None = None) -> WordErrors:
    """Errors of `heard` against `meant`, which must hold a word."""
    return differences(words_of(meant, alike), words_of(heard, alike))


def differences(reference: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Errors of the words heard against those meant, of which there must be one."""
    assert reference, "word errors need at least one word"
    found = jiwer.process_words(" ".join(reference), " ".join(heard))
    return WordErrors(len(reference), found.substitutions, found.insertions, found.deletions)


@dataclass(frozen=True)
class Hearing:
    """What scoring has to know of a recogniser."""

    name: str
    alike: dict[str, str] = field(default_factory=dict)
    """Words that sound like another (`you` like `u`), mapped to it: only a sentence could tell them apart."""
    missing: list[str] = field(default_factory=list)
    """Words it has no pronunciation for: wherever they are said they count as errors."""
    normaliser: str = NORMALISER
    """How texts become the words that are compared."""

    def words(self, text: str) -> list[str]:
        """A text as the words that are compared."""
        return words_of(text, self.alike) if self.normaliser == NORMALISER else english()(text).split()


def known_words(texts: Iterable[str] = ()) -> list[str]:
    """The nano domain's words and those of `texts`, sorted."""
    return sorted({*domain_vocabulary(), *(word for text in texts for word in spoken_words(text))})


def recogniser_identity(words: Sequence[str]) -> dict[str, str]:
    """All that decides what a Recogniser of these words hears, without building it. Raises VocalnetError without pocketsphinx."""
    try:
        found = version("pocketsphinx")
    except PackageNotFoundError as error:
        raise _not_installed() from error
    return {
        "pocketsphinx": found,
        "warp": _WARP,
        "noise": "each sound anew",
        "words_sha256": hashlib.sha256(" ".join(words).encode()).hexdigest(),
    }


def _not_installed() -> VocalnetError:
    return VocalnetError("the recogniser pocketsphinx is not installed", "Install it with: pip install 'vocalnet-cli[eval]'")


class Recogniser:
    """pocketsphinx with its English acoustic model and a loop over known words: any word may follow any other, all equally likely.

    So it knows the vocabulary but no sentences, and cannot guess an answer that was not said.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Knows `words` (of `known_words`). Raises VocalnetError without pocketsphinx."""
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise _not_installed() from error
        self._decoder = Decoder(lm=None, samprate=QUESTION_HZ, loglevel="FATAL", warp_type="inverse_linear", warp_params=_WARP)
        sounds = {word: self._decoder.lookup_word(word) for word in words}
        first: dict[str, str] = {}
        for word, sound in sounds.items():
            if sound is not None:
                first.setdefault(sound, word)
        self.hearing = Hearing(
            name=f"pocketsphinx {version('pocketsphinx')}, loop over {len(first)} words, frequencies x {_WARP}",
            alike={word: first[sound] for word, sound in sounds.items() if sound is not None and first[sound] != word},
            missing=[word for word, sound in sounds.items() if sound is None],
        )
        with tempfile.TemporaryDirectory() as folder:
            loop = Path(folder) / "words.arpa"
            loop.write_text(_word_loop(list(first.values())), encoding="utf-8")
            self._decoder.add_lm_file("words", str(loop))
        self._decoder.activate_search("words")

    def hear(self, samples: np.ndarray, rate: int) -> str:
        """The words in mono sound [n] at `rate`; empty if there are none. Each call stands alone."""
        sound = resample(samples, rate, QUESTION_HZ)
        if len(sound) == 0:
            return ""
        peak = max(float(np.abs(sound).max()), 1.0)  # peaks over full scale are turned down, quiet sound stays as it is
        sound = np.pad(sound / peak * _HEADROOM, round(_PAD_S * QUESTION_HZ))
        self._decoder.reinit_feat()  # else its estimate of the noise goes on from what it heard before
        self._decoder.start_utt()
        self._decoder.process_raw((sound * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        best = self._decoder.hyp()
        return best.hypstr if best is not None else ""


def _word_loop(words: Sequence[str]) -> str:
    """A unigram model in ARPA format in which every word, and the end, is equally likely.

    It is the grammar `(one | two | ...)+`, which pocketsphinx searches fifty times slower when written as a grammar.
    """
    share = -math.log10(len(words) + 1)
    rows = "".join(f"{share:.6f} {word}\n" for word in words)
    return f"\\data\\\nngram 1={len(words) + 2}\n\n\\1-grams:\n-99 <s>\n{share:.6f} </s>\n{rows}\n\\end\\\n"
