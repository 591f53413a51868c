"""How good the answers are: right or wrong, understood by a recogniser or not."""
