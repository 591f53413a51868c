"""From a spoken question to a stream of text and sound."""
