"""The networks that --modelName can name. A new one is a file here and a line below.

A model is made as SelfMM is: Model(config, bert_config, audio_width, vision_width, bert). It keeps `hyper_parameters`,
`frame_widths` and `text_encoder.bert`, and maps a Batch to Outputs, fusion among the tasks.
"""

from models.self_mm import SelfMM

MODELS = {"self_mm": SelfMM}
