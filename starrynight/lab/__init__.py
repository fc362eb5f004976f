"""The precision lab: what every number format costs, as experiments with verdicts on published claims and a report.

plan         → the claims; models × formats × prompts × seeds; points
run          → a run's folder: rows and pictures, resumable
runner       → measures the points that are missing
background   → runs an experiment in a process of its own
bench        → painters in every format, and each painting made once
formats      → loads a model as a painter in one format
experiments/ → the registry, and what each experiment measures and concludes
instruments  → blocks, noise levels and live tensors of a network (imports torch)
metrics      → how one picture differs from another
stats        → estimates with intervals
findings     → verdicts, and the rows they are computed from
table        → a run as data, for interfaces
report/      → HTML, Markdown, JSON
advice       → which precision to use for a model here, in a paragraph with numbers

The lab knows no terminal, server or gallery. Importing the package imports none of these modules.
"""
