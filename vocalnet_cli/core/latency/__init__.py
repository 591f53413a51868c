"""How long things take, part by part."""
