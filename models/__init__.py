"""The networks that --modelName can name. A new one is a file here and a line below."""

from models.self_mm import SelfMM

MODELS = {"self_mm": SelfMM}
