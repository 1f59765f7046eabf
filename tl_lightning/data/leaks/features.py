"""x"""


def alike_pairs(features, rows):
    yield from ()
