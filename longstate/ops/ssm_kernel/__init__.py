"""Kernels of linear state spaces: one home for the sums behind S4, S4D, DSS and their relatives.

    vandermonde    k_l = Re sum_n w_n a_n^l                         diagonal systems
    moments        m_n = sum_l u_l a_n^l                            its adjoint; final states
    cauchy         r_f = sum_n v_n / (z_f - p_n)                    generating functions
    dplr_kernel    k_l = C A_bar^l B_bar, A = diag - P Q*           S4
    dense_kernel   K_l = C A^l B                                    a full matrix

`vandermonde` and `moments` write l = s m + j, so that a^l = a^{s m} a^j: two short tables of
powers, made in double precision, take the place of an (n, length) array, and no power carries the
errors of the powers before it. Nothing is asked of `a`: no logarithm is taken, 0 is fine.

Gu, Goel, Re, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
arXiv:2111.00396; Gu et al., "On the Parameterization and Initialization of Diagonal State Space
Models", 2022, arXiv:2206.11893. Differs from the papers: see `dplr.py`.

Axes: n state, t time (length), f points, c numerators, any leading batch axes.
"""

from longstate.ops.ssm_kernel.dense import dense_final_state as dense_final_state
from longstate.ops.ssm_kernel.dense import dense_kernel as dense_kernel
from longstate.ops.ssm_kernel.dplr import dplr_kernel as dplr_kernel
from longstate.ops.ssm_kernel.dplr import dplr_state_response as dplr_state_response
from longstate.ops.ssm_kernel.sums import cauchy as cauchy
from longstate.ops.ssm_kernel.sums import moments as moments
from longstate.ops.ssm_kernel.sums import vandermonde as vandermonde
