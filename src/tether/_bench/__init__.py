"""The benchmark behind ``python -m tether bench``: tether beside its rivals, both sides in one run.

Layout, from what is measured to what is shown::

    spawn, scope, sleeping, fib, hashing    workloads: plain functions, no clock inside
    lending, mapping, filling, sums         the same, of regions and borrows
    stdlib                                  the real input; runs alone too, as a bare process without tether
    bare                                    two such processes, ready before the clock starts
    probe, child                            what needs a fresh process: the inside and the outside of it
    memory, idle                            what the probes read from the kernel
    sizes                                   how much of everything, full and quick
    row, rows, data_rows                    what a row is; the rows; those about memory
    measure                                 warm-up, alternating rounds, medians and quartiles
    outcome                                 a measured row, judged against its goals
    run                                     rows in, outcomes out
    machine, units, table, progress, report, plot    what the reader sees

The pytest-benchmark suite of the repository (``bench/``) runs the same workload functions.
Nothing here is imported by ``import tether``.
"""
