"""What `mamba-ssm` 2.3 and `causal-conv1d` 1.7 publish, computed by `longstate.ops` on any device.

Signatures, layouts, in-place updates and types of results are those of the two packages; parameter
names too, so that state dicts go both ways. `provide` makes the names importable as `mamba_ssm` and
`causal_conv1d`; the other files are what stands behind them.

Arguments keep their published names here (`delta`, `headdim`, `seq_idx`) and time its published
place: last in the convolution and in Mamba's scan (b, d, t), second in Mamba-2's (b, t, h, p).
Differs from the packages: float64 is computed in float64, gradients of last states are right, and
whatever cannot be done raises `InputError` with one sentence that names the argument.

Axes: b batch, t time, d channels, h heads, p channels per head, n state, g groups, k taps.
"""
