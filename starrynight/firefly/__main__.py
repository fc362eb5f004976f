"""``python -m starrynight.firefly VERB``: the recipe's verbs.

They live in ``verbs.py`` because a spawned process cannot find what a package's ``__main__`` defines.
"""

from starrynight.firefly.verbs import main

if __name__ == "__main__":
    main()
