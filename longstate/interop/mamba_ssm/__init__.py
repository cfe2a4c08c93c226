"""The public names of `mamba-ssm` 2.3 and `causal-conv1d` 1.7, by `longstate.ops` on any device.

Signatures, layouts, in-place updates, types of results and names of parameters are those of the two
packages, so that state dicts can be exchanged. `provide` makes the names importable as `mamba_ssm`
and `causal_conv1d`; the other files implement them.

Arguments have their published names (`delta`, `headdim`, `seq_idx`), and time its published axis:
last in the convolution and in Mamba's scan (b, d, t), second in Mamba-2's (b, t, h, p). Differs
from the packages: float64 is computed in float64, gradients of last states are correct, and
unsupported arguments raise `InputError` with a sentence that names the argument.

Axes: b batch, t time, d channels, h heads, p channels per head, n state, g groups, k taps.
"""
