"""The nano corpus: a small spoken world made with free voices, split so that what is new in a test is really new."""
