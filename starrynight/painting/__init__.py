"""Painting: any text-to-image pipeline, from a request to float32 pixels.

catalogue → which models there are, what suits them, where they lie
styles    → prompt presets in two languages
checking  → whether a request can be painted, before anything heavy is loaded; warnings
files     → whether a weight file may be trusted and is whole (no torch)
hub       → fetch a model: a hub, its mirror, or ModelScope; resumable, checked
layouts   → which architecture a single .safetensors holds, and the small files it lacks
loading   → from files to a pipeline under a precision plan
folding   → folds for a model, made once and kept
notebook  → what a long calibration has learnt so far, to go on with
memory    → what stays on the device, what is offloaded
attention → back ends by short names
samplers  → names to schedulers
adapters  → LoRAs: put on, take off
guard     → finite numbers, stage by stage; climbs the ladder where they are not
ladder    → what may be changed in a component whose numbers broke, rung by rung
canvas    → what the painter hands over: a picture, a refusal, a step
preview   → latents to a small picture by one matrix
painter   → the main path

This room knows nothing of galleries, files for pictures, terminals or servers, and nothing in it asks which
family a pipeline belongs to. Importing the package imports none of these files.
"""
