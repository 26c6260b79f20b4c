"""How each model of --modelName is trained. A new way is a file here and a line below."""

from trains.self_mm import fit

TRAINERS = {"self_mm": fit}
