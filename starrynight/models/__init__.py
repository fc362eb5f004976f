"""Models: find them, check their files, load them as diffusers pipelines.

catalogue      → the table of models; a name, folder or file becomes a ModelSpec (``find``) or a LocalModel (``resolve``)
weights        → whether a weight file is whole and trusted, its header (no torch)
recognition    → what a single file holds: networks by kind and family, or a LoRA, a ControlNet …
single_file    → which architecture a single .safetensors holds, and the small files it lacks
parts          → which component of a base a file replaces, and which file fits
registry       → models that the user put together from files (``assembly`` checks them)
places         → folders of other programs, searched by name
menu           → the models and LoRAs that can be chosen here
download       → fetch a model from a hub, its mirror, or ModelScope
network        → proxies, and network faults in words
stored         → how a component's weights are stored, by their headers (no torch)
tensors        → the tensors of weight files as the numbers they mean (with ``packed`` and ``gguf``)
kept           → layers whose weights stay packed in memory
precision_plan → the number format of each component on this machine
load           → a pipeline under a precision plan
library_errors → what a library raises meanwhile, as one of our errors
lora           → LoRAs: find, apply, remove
"""
