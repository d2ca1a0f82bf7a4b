"""Questions about windows: from the wish to rows of both stores, joined, and to figures, tables and comparisons.

    question   what is asked, and at which granularity
    stored     windows from PostgreSQL, and as much finer ones as stand in for those that are not closed yet
    join       those and the rings of Redis as one: every moment of a series from one window, none twice
    answer     points: windows of a group and a step merged, sketches turned into quantiles
    compare    two versions or two periods, point by point and as wholes
    table      points as CSV or Arrow
"""
