"""Phase reconstruction in windows: speech tokens -> log-mel -> sound, while the tokens still arrive.

Griffin-Lim holds magnitudes fixed and looks for phases. From 80 mel bins only smooth magnitudes are known, without a voice's harmonics,
and held fixed they make a whisper: of nano's recorded answers, from their own mel, the recogniser gets 15.7 % of the words wrong
(6.4 % of the recordings'). So only the mel is held here: each round keeps the fine structure the sound has and scales it until its mel
is the one wanted, and harmonics grow by themselves (7.5 %; the 120 answers of nano-combination).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vocalnet_cli.core.audio.mel import hann, vocoder_filters
from vocalnet_cli.core.config.vocoder_schema import GriffinLimSettings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.speech_tokenizer import REACH, SpeechTokenizer
from vocalnet_cli.core.model.vocoder.contract import Vocoder, Voice
from vocalnet_cli.core.model.vocoder.held_mel import LEAD, QUIET, SHARED, factors_towards, overlap_add
from vocalnet_cli.core.units import FRAMES_PER_TOKEN, VOCODER_FFT, VOCODER_HOP, VOCODER_MEL_BINS

_GAIN = 0.375 * VOCODER_FFT / VOCODER_HOP
"""Sum of the squared Hann windows that overlap at any sample."""

_MOMENTUM = 0.9
_FORMANT_BINS = 15
"""Mel bins over which a spectrum is smoothed to find what stands out of it."""
_STANDING_OUT = 3.3
"""How far, in nats, what makes speech loud stands out: 25 recorded answers are as loud (root mean square) with sharpness as without."""


@dataclass
class VocoderState:
    """What one utterance must remember: tokens of the window that is filling, the frames still open, and the finished tail."""

    pending: Tensor
    """Speech tokens [n] that wait for their window to fill, or for the tokens after them."""
    before: Tensor
    """The last REACH tokens that were decoded: the next ones' frames depend on them."""
    wanted: Tensor
    """Mel of the open frames, not logarithmic [open frames, 80]."""
    spectrum: Tensor
    """Their spectrum so far, complex [open frames, 961]."""
    tail: Tensor
    """Overlap-added finished frames, the 1440 samples that open frames also cover."""
    lead: int = LEAD
    """Samples before the start of the sound still to be dropped."""
    windows: int = 0
    """Windows done; with the settings alone it says how many tokens the next one takes."""


class GriffinLimVocoder(Vocoder):
    """Fast Griffin-Lim (Perraudin et al. 2013) over a moving window (as RTISI-LA, Zhu et al. 2007), with the mel for its magnitudes.

    Window w takes tokens up to first_tokens + w * block_tokens. It works on the frames of its new tokens and on those of the
    `overlap_tokens` before, which were left open; frames older than that are finished and stay part of the sound the new ones
    must agree with. The schedule knows token positions only, so that every split of the tokens gives the same samples.
    """

    def __init__(self, settings: GriffinLimSettings) -> None:
        super().__init__()
        self.settings = settings
        self.tokenizer = SpeechTokenizer(settings.codes, settings.latent, settings.hidden, settings.blocks)

    def begin(self, voice: Voice | None = None) -> VocoderState:
        """A fresh utterance. There is one voice, the codebook's: any other raises VocalnetError."""
        if voice is not None:
            raise VocalnetError("the griffin-lim vocoder has one voice, its codebook's", "Leave the voice out.")
        device = self.tokenizer.codebook.device
        bins = VOCODER_FFT // 2 + 1
        return VocoderState(
            pending=torch.zeros(0, dtype=torch.long, device=device),
            before=torch.zeros(0, dtype=torch.long, device=device),
            wanted=torch.zeros(0, VOCODER_MEL_BINS, device=device),
            spectrum=torch.zeros(0, bins, dtype=torch.complex64, device=device),
            tail=torch.zeros(SHARED, device=device),
        )

    @torch.no_grad()
    def push(self, state: VocoderState, tokens: Tensor, last: bool) -> np.ndarray:
        """Next tokens [n] to the samples that are final now (see `Vocoder.push`); 960 T in all for T tokens."""
        state.pending = torch.cat([state.pending, tokens.to(state.pending.device)])
        done = []
        while len(state.pending) >= (size := self._window_tokens(state)) + REACH:
            done.append(self._window(state, self._next_mel(state, size), last=False))
        if last:
            done.append(self._window(state, self._next_mel(state, len(state.pending)), last=True))
        return torch.cat(done).cpu().numpy() if done else np.zeros(0, np.float32)

    def wanted(self, state: VocoderState) -> int:
        """Tokens, at least one, until the next window can be done."""
        return max(1, self._window_tokens(state) + REACH - len(state.pending))

    def chunks(self, count: int) -> list[int]:
        """Tokens of each window of an answer of `count` tokens; the last takes what is left."""
        sizes: list[int] = []
        while count >= (size := self.settings.block_tokens if sizes else self.settings.first_tokens) + REACH:
            sizes.append(size)
            count -= size
        return [*sizes, count] if count else sizes

    def _window_tokens(self, state: VocoderState) -> int:
        return self.settings.first_tokens if state.windows == 0 else self.settings.block_tokens

    def _next_mel(self, state: VocoderState, size: int) -> Tensor:
        """Log-mel [80, 2 size] of the first `size` pending tokens, which then pend no more."""
        context = torch.cat([state.before, state.pending[: size + REACH]])
        start, end = len(state.before), len(state.before) + size
        mel = self.tokenizer.decode(context)[:, FRAMES_PER_TOKEN * start : FRAMES_PER_TOKEN * end]
        state.before, state.pending = context[:end][-REACH:], state.pending[size:]
        return sharpened(mel, self.settings.sharpness)

    def _window(self, state: VocoderState, mel: Tensor, last: bool) -> Tensor:
        """Reconstruct the open frames and those of `mel` [80, F], finish all but the overlap (all if `last`): final samples [m]."""
        wanted = torch.cat([state.wanted, mel.T.exp()])
        spectrum = state.spectrum
        if mel.shape[1]:
            spectrum = _reconstruct(_begun(spectrum, mel_to_magnitude(mel), state.tail), wanted, state.tail, self.settings.iterations)
        finished = len(wanted) if last else max(0, len(wanted) - FRAMES_PER_TOKEN * self.settings.overlap_tokens)
        sound = _overlap_add(spectrum[:finished], state.tail)
        final = sound if last else sound[: finished * VOCODER_HOP]
        state.tail = sound[finished * VOCODER_HOP :]
        state.wanted, state.spectrum = wanted[finished:], spectrum[finished:]
        state.windows += 1
        dropped = min(state.lead, len(final))
        state.lead -= dropped
        # Half a window of finished frames reaches past the last token: not part of the sound.
        end = len(final) - (SHARED - LEAD) if last else len(final)
        return final[dropped : max(dropped, end)] / _GAIN


def sharpened(mel_MF: Tensor, sharpness: float) -> Tensor:
    """Log-mel [80, F] whose frames, each by itself, stand out from their own smoothed spectra by so much more, speech as loud as before."""
    if not sharpness:
        return mel_MF
    edge = _FORMANT_BINS // 2
    smooth = nn.functional.avg_pool1d(nn.functional.pad(mel_MF.T[:, None], (edge, edge), mode="replicate"), _FORMANT_BINS, 1)
    return mel_MF + sharpness * (mel_MF - smooth[:, 0].T - _STANDING_OUT)


def mel_to_magnitude(mel_MF: Tensor, rounds: int = 30) -> Tensor:
    """Log-mel [80, F] to linear magnitudes [F, 961]: non-negative least squares by multiplicative updates (Lee and Seung 2001)."""
    filters = vocoder_filters(mel_MF.device)
    target = mel_MF.T.exp()
    start = target @ filters / (filters.sum(0) * filters.sum(1).mean()).clamp_min(QUIET)
    gain = target @ filters
    x = start
    for _ in range(rounds):
        x = x * gain / ((x @ filters.T) @ filters).clamp_min(QUIET)
    return x


def mel_to_sound(mel_MF: Tensor, iterations: int = 32) -> np.ndarray:
    """Log-mel [80, F] to float32 [480 F], all frames in one window."""
    magnitude = mel_to_magnitude(mel_MF.float())
    tail = torch.zeros(SHARED, device=magnitude.device)
    start = _begun(torch.zeros(0, magnitude.shape[1], dtype=torch.complex64, device=magnitude.device), magnitude, tail)
    sound = _overlap_add(_reconstruct(start, mel_MF.T.float().exp(), tail, iterations), tail) / _GAIN
    return sound[LEAD : LEAD + VOCODER_HOP * len(magnitude)].cpu().numpy()


def _unit(spectrum: Tensor) -> Tensor:
    return spectrum / spectrum.abs().clamp_min(QUIET)


def _overlap_add(spectrum_FW: Tensor, tail: Tensor) -> Tensor:
    """Frames [F, 961] windowed and added onto the finished `tail` [1440]: samples [480 F + 1440], not divided by the gain."""
    if len(spectrum_FW) == 0:
        return tail
    return overlap_add(torch.fft.irfft(spectrum_FW, n=VOCODER_FFT) * hann(VOCODER_FFT, tail.device), tail)


def _analyse(sound: Tensor) -> Tensor:
    """STFT [F, 961] of sound [480 F + 1440] as `_overlap_add` leaves it."""
    return torch.fft.rfft(sound.unfold(0, VOCODER_FFT, VOCODER_HOP) * (hann(VOCODER_FFT, sound.device) / _GAIN))


def _begun(spectrum: Tensor, magnitude: Tensor, tail: Tensor) -> Tensor:
    """The open frames' spectrum and that of new ones of `magnitude` [F, 961]: each takes its phases from the sound that the frames before
    it reach into it with."""
    known, count = len(spectrum), len(spectrum) + len(magnitude)
    sound = torch.cat([_overlap_add(spectrum, tail), tail.new_zeros((count - known) * VOCODER_HOP)])
    window = hann(VOCODER_FFT, tail.device)
    # After silence there is nothing to continue: phases that spread a frame's energy over its length (Schroeder 1970).
    line = torch.arange(magnitude.shape[1], device=tail.device)
    silent = torch.polar(torch.ones_like(magnitude[0]), -torch.pi * line.square() / len(line))
    begun = [spectrum]
    for frame, loud in enumerate(magnitude, known):
        part = sound[frame * VOCODER_HOP : frame * VOCODER_HOP + VOCODER_FFT]
        heard = torch.fft.rfft(part * window)
        new = loud * torch.where(heard.abs() > QUIET, _unit(heard), silent)
        part += torch.fft.irfft(new, n=VOCODER_FFT) * window
        begun.append(new[None])
    return torch.cat(begun)


def _reconstruct(spectrum: Tensor, wanted: Tensor, tail: Tensor, iterations: int) -> Tensor:
    """Open frames [F, 961] whose sound, the finished `tail` held fixed, has the mel `wanted` [F, 80]: in turn made the spectrum of a sound,
    and scaled to that mel."""
    heard = (vocoder_filters(tail.device).sum(0) > 0).float()
    previous = torch.zeros_like(spectrum)
    for _ in range(iterations):
        found = _analyse(_overlap_add(spectrum, tail))
        ahead = found + _MOMENTUM * (found - previous)
        spectrum = ahead * (factors_towards(wanted, ahead) * heard)
        previous = found
    return spectrum
