"""Who says whether an answer is right, or how good it is: a rule, or a language model behind an OpenAI-compatible endpoint."""
