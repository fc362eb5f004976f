"""``python -m starrynight.senses VERB``: the recipe's verbs, which are in ``verbs.py``."""

# Not imported where this module is loaded again: the processes that draw pictures need no torch.
if __name__ == "__main__":
    from starrynight.senses.verbs import main

    main()
