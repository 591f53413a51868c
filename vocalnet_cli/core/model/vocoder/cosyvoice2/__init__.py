"""The CosyVoice2 vocoder (arXiv 2412.10117): `flow` turns speech tokens into mel, `hift` mel into 24 kHz sound, both in pieces."""
