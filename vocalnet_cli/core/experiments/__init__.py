"""Whole tables of a paper: every row trained with several seeds, measured and summed up."""
