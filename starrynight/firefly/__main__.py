"""``python -m starrynight.firefly VERB``: the recipe's verbs.

They live in ``verbs.py`` because a spawned process cannot find what a package's ``__main__`` defines.
"""

# Not imported where this module is loaded again: the processes that draw pictures need no torch.
if __name__ == "__main__":
    from starrynight.firefly.verbs import main

    main()
