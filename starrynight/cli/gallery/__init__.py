"""``starry gallery``: find, prove, mend, bring in, take out, throw away. Importing it registers every command.

One idea a room: ``group`` (the group itself, what all share), ``finding``, ``keeping``, ``moving``, ``trash``.
Every command says what it did in one line. Knows the gallery's verbs; not how pictures are kept.
"""

from starrynight.cli.gallery import finding, group, keeping, moving, trash  # noqa: F401
