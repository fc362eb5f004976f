"""Painting: any text-to-image pipeline, from a request to float32 pixels.

catalogue → which models there are, what suits them, where they lie
styles    → prompt presets in two languages
checking  → whether a request can be painted, before anything heavy is loaded; warnings
files     → whether a weight file may be trusted and is whole (no torch)
hub       → fetch a model: a hub, its mirror, or ModelScope; resumable, checked
layouts   → which architecture a single .safetensors holds, and the small files it lacks
loading   → from files to a pipeline under a precision plan
memory    → what stays on the device, what is offloaded
samplers  → names to schedulers
adapters  → LoRAs: put on, take off
guard     → finite numbers, stage by stage
preview   → latents to a small picture by one matrix
painter   → the main path

This room knows nothing of galleries, files for pictures, terminals or servers, and nothing in it asks which
family a pipeline belongs to. Importing the package imports none of these files.
"""
