"""Rates of the signal path. Every other file derives its sizes from these."""

from __future__ import annotations

QUESTION_HZ = 16_000
"""Sample rate of everything the encoder hears."""

ANSWER_HZ = 24_000
"""Sample rate of everything the vocoder says."""

ENCODER_HOP = 160
"""Samples between two log-mel frames of the encoder (100 frames a second)."""

ENCODER_FFT = 400
"""Window of the encoder's log-mel, 25 ms."""

ENCODER_STRIDE = 2
"""The encoder's second convolution halves the frame rate: 50 encoder frames a second."""

SPEECH_TOKEN_HZ = 25
"""Speech tokens a second."""

VOCODER_MEL_HZ = 50
"""Vocoder mel frames a second: two a speech token."""

VOCODER_FFT = 1920
VOCODER_MEL_BINS = 80

VOCODER_HOP = ANSWER_HZ // VOCODER_MEL_HZ
FRAMES_PER_TOKEN = VOCODER_MEL_HZ // SPEECH_TOKEN_HZ
SAMPLES_PER_TOKEN = ANSWER_HZ // SPEECH_TOKEN_HZ

COSYVOICE2_CODES = 6561
"""Codebook of the released speech tokenizer (3**8, CosyVoice 2)."""

assert VOCODER_HOP * VOCODER_MEL_HZ == ANSWER_HZ
assert FRAMES_PER_TOKEN * SPEECH_TOKEN_HZ == VOCODER_MEL_HZ
