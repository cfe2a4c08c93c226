"""Tensors in, tensors out: the recurrences, with a reference, a Numba and mostly a Triton form."""

from longstate._lazy import public as _public
from longstate.ops.allpass_channel_scan import allpass_channel_scan as allpass_channel_scan
from longstate.ops.channel_scan import dense_channel_scan as dense_channel_scan
from longstate.ops.channel_scan import diagonal_channel_scan as diagonal_channel_scan
from longstate.ops.chimera_scan import chimera_scan as chimera_scan
from longstate.ops.chunk_scan import chunk_scan as chunk_scan
from longstate.ops.diagonal_scan import diagonal_scan as diagonal_scan
from longstate.ops.dplr_channel_scan import dplr_channel_scan as dplr_channel_scan
from longstate.ops.expm_scan import expm_scan as expm_scan
from longstate.ops.gated_norm import gated_norm as gated_norm
from longstate.ops.longhorn_scan import longhorn_scan as longhorn_scan
from longstate.ops.oscillator_scan import oscillator_scan as oscillator_scan
from longstate.ops.selective_scan import selective_scan as selective_scan
from longstate.ops.short_conv import short_conv as short_conv
from longstate.ops.zoh_channel_scan import zoh_channel_scan as zoh_channel_scan
from longstate.ops.zoh_scan import zoh_scan as zoh_scan


def __dir__() -> list[str]:
    return _public(globals())
