"""Painting: from a request to float32 pixels, with any text-to-image pipeline.

painter    → the main path: load a model, paint picture after picture
checking   → whether a request can be painted, before anything heavy is loaded
styles     → prompt presets in two languages
schedulers → short sampler names to diffusers' schedulers
guard      → finite checks at every stage
fallback   → what the guard may change in a component whose numbers broke
offload    → what stays on the device and what is offloaded
attention  → attention back ends by short names
preview    → latents to a small picture
results    → what the painter returns (no torch)

Nothing here knows galleries or interfaces, or asks which family a pipeline belongs to. Importing the package imports
none of these files.
"""
