"""Modules import each other one way: circles are counted, and none may be added."""

from __future__ import annotations

import grimp
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

AT_RUN_TIME = [
    # A method loads what writes or measures it when it is called
    {"ifujax.data.cube", "ifujax.data.spectrum", "ifujax.data.tools"},
    {"ifujax.data.image", "ifujax.io.images"},
]


def circles(exclude_type_checking: bool) -> list[set[str]]:
    """Return the sets of modules that import each other, directly or through others."""
    graph = grimp.build_graph("ifujax", exclude_type_checking_imports=exclude_type_checking)
    names = sorted(graph.modules)
    place = {name: k for k, name in enumerate(names)}
    pairs = [(place[name], place[other]) for name in names for other in graph.find_modules_directly_imported_by(name)]
    rows, columns = zip(*pairs)
    matrix = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(names), len(names))).tocsr()
    count, label = connected_components(matrix, connection="strong")
    groups = [{names[k] for k in np.flatnonzero(label == group)} for group in range(count)]
    return sorted((group for group in groups if len(group) > 1), key=sorted)


def test_circles_at_run_time():
    assert circles(exclude_type_checking=True) == AT_RUN_TIME


def test_circles_of_annotations_do_not_grow():
    """Annotations alone may go round; the largest of these circles is that of what a fit of lines can do."""
    sizes = sorted(map(len, circles(exclude_type_checking=False)), reverse=True)
    print(sizes)
    assert sizes[0] <= 34
    assert sum(sizes) <= 70
