"""Measure the speed of ops and layers on this machine, and compare it with the machine's limits.

A row is one op or layer in one mode: "forward" (without gradients), "forward+backward" (gradients
of every operand and parameter, from one of y), and for layers "step" (one sample for each sequence,
under a state). Its `ms` is the median of repeated calls, with the middle half of them beside it.

Results are checked before they are timed. On a small shape, in the type and on the device to be
timed, outputs and all gradients of an op are compared with its reference, those of a layer with its
own steps, both in float64 on the CPU. If a result has less than half the digits of its type, or is
not finite at the full shape, no speed is reported.

Fractions of the bandwidth limit: least bytes / time / bandwidth. Least bytes are
    forward             operands and parameters read once, y and the last state written once
    forward+backward    besides: operands, parameters and the gradient of y read, gradients written
    step                parameters, sample and state read once, y and the next state written once
Intermediate values (activations, states, workspace) are not counted. The limit is the fastest of a
copy, a sum and a triad of arrays much larger than the caches. Small operands that stay in the cache
may be faster; then the fraction is above 1.

Fractions of the matrix-product limit: the time that the products would take at the limit, over the
time taken. Products are counted as PyTorch dispatches them (projections, einsum, ...), each at the
limit of its own type; inside the ops of this package by formula (`bench/_products.py`), where the
backward counts as twice the forward and nothing that is computed again counts. No other
arithmetic is counted: a scan has no products and no such fraction. The limit is a large square
product.

Limits are measured before and after the rows, and the better value is used. `moved` is the largest
relative difference between the two; a large value means that the machine was busy.

The JSON line: `environment`, `settings`, `device_name`, `limits` (`products_gflops` by type,
`bandwidth_gbs`, `transfers_gbs` by kind, `moved`), `complete` (false after an interrupt), and for
every row
    kind, name, mode        "op" or "layer"; name; mode as above
    shapes                  of the operands
    ms, ms_low, ms_high     median, middle half; null without a speed, and `note` says why
    repeats                 timings behind them
    tokens, tokens_per_s    samples that a call takes; lags for a kernel of lags
    bytes, bandwidth_fraction
    products                operations by type, and
    product_fraction        null where there are none
    error                   of the check, relative to the largest value of each tensor
    wrong, note             whether the check failed; why there is no speed
"""

from longstate._lazy import public as _public
from longstate.bench._measure import Result as Result
from longstate.bench._measure import Row as Row
from longstate.bench._measure import run as run
from longstate.bench._settings import Settings as Settings
from longstate.bench._warm import warm as warm


def __dir__() -> list[str]:
    return _public(globals())
