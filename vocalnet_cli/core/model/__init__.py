"""The speech LLM, one file a part, in the order of the signal path.

    encoder -> adaptor -> (prompt) thinker -> talker -> vocoder

Letters in the comments and names of tensors that cross a function boundary:
    B batch, F mel frames (100 a second), T encoder frames (50 a second), A audio embeddings (10 a second),
    L text positions, S speech tokens (25 a second), H width of thinker and talker, V vocabulary, K prediction heads.
"""
