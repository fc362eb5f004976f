"""The precision lab: what every number format costs, as experiments over the studio, with verdicts and a report.

claims       → what is claimed, in both languages
plan         → models × formats × prompts × seeds; points
run          → the folder: rows, pictures, resumable
runner       → measures what is missing
bench        → hands in every format, paintings painted once
formats      → a painter in a given format
experiments/ → one question a file, one shape
metrics      → how one picture differs from another
stats        → intervals
counting     → memory from live tensors
findings     → verdicts, and the rows they are drawn from
table        → a run as data, for doors
report/      → HTML, Markdown, JSON
advise       → which precision for this model here, in a paragraph with numbers

This room knows nothing of terminals, servers or the gallery. Importing the package imports none of these files.
"""
