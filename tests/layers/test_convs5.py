"""ConvS5: its equation, S5 pixel by pixel, images, and options."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.layers import S5, ConvS5
from longstate.layers.convs5 import _seen
from longstate.testing import assert_within_reference_error

CHANNELS, HEIGHT, WIDTH = 2, 5, 4
FRAME = (CHANNELS, HEIGHT, WIDTH)


def made(height=HEIGHT, width=WIDTH, **options) -> ConvS5:
    torch.manual_seed(0)
    options = {"d_state": 8, "n_blocks": 2} | options
    return ConvS5(CHANNELS * height * width, height=height, width=width, **options).double()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def recurrence(layer: ConvS5, frames: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Frame by frame, pixel by pixel: images that are padded by hand, and sums over offsets."""
    A = torch.complex(-layer.log_decay.exp(), layer.frequency) * layer.log_dt.exp()
    B, C = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
    B = layer.log_dt.exp()[:, None, None, None] * B
    b, t, _, height, width = frames.shape
    x = torch.zeros(b, len(A), height, width, dtype=B.dtype)
    outputs = []
    for k in range(t):
        step = (A * dt[:, k, None]).exp()  # b, n
        x = step[..., None, None] * x + ((step - 1) / A)[..., None, None] * around(frames[:, k], B)
        outputs.append(2 * around(x, C).real + around(frames[:, k], layer.D))
    return torch.stack(outputs, 1), x


def around(image: Tensor, kernel: Tensor) -> Tensor:
    size, (height, width) = kernel.shape[-1], image.shape[-2:]
    padded = F.pad(image.to(torch.promote_types(image.dtype, kernel.dtype)), [size // 2] * 4)
    return sum(
        torch.einsum("oc,bchw->bohw", kernel[..., i, j].to(padded.dtype),
                     padded[..., i : i + height, j : j + width])
        for i in range(size) for j in range(size)
    )  # fmt: skip


@pytest.mark.parametrize("kernel", [1, 3, 5, 11])
def test_a_pass_is_the_recurrence_frame_by_frame(kernel):
    layer, frames = made(kernel=kernel), noise(2, 9, *FRAME)
    dt = 2 * torch.rand(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for given in (None, dt):
        wanted, last = recurrence(layer, frames, torch.ones_like(dt) if given is None else given)
        y, state = layer(frames.flatten(2), dt=given)
        assert_close(y.unflatten(2, FRAME), wanted)
        assert_close(state, last)


@pytest.mark.parametrize(
    ("size", "kernel", "entries"), [(1, 3, 1), (1, 1, 1), (2, 7, 3), (3, 5, 5), (9, 3, 3)]
)
def test_entries_that_meet_no_pixel_are_left_out(size, kernel, entries):
    kept = range(kernel)[_seen(size, kernel)]
    assert len(kept) == entries
    assert sum(kept) == entries * (kernel // 2)  # around the centre


def s5_of(layer: ConvS5) -> S5:
    """S5 with the middle of every kernel."""
    plain = S5(CHANNELS, d_state=8, n_blocks=2).double()
    middle = layer.D.shape[-1] // 2
    with torch.no_grad():
        for name in ("log_dt", "log_decay", "frequency"):
            plain.get_parameter(name).copy_(layer.get_parameter(name))
        plain.B.copy_(layer.B[:, :, middle, middle])
        plain.C.copy_(layer.C[:, :, middle, middle])
        plain.D.zero_()
    return plain


@pytest.mark.parametrize(("height", "width", "kernel"), [(1, 1, 3), (1, 1, 1), (HEIGHT, WIDTH, 1)])
def test_images_of_one_pixel_and_kernels_of_one_are_s5_at_every_pixel(height, width, kernel):
    layer = made(height, width, kernel=kernel)
    plain, frames = s5_of(layer), noise(2, 11, CHANNELS, height, width)
    pixels = frames.permute(0, 3, 4, 1, 2).flatten(0, 2)  # b * height * width, t, c
    expected, last = plain(pixels)
    expected = expected + pixels @ layer.D[..., kernel // 2, kernel // 2].T
    y, state = layer(frames.flatten(2))
    y = y.unflatten(2, frames.shape[2:]).permute(0, 3, 4, 1, 2).flatten(0, 2)
    assert_close(y, expected)
    assert_close(state.permute(0, 2, 3, 1).flatten(0, 2), last)


def test_it_begins_with_the_decays_of_s5_and_he_normal_kernels():
    torch.manual_seed(0)
    options = {"d_state": 64, "n_blocks": 2}
    ours, s5 = ConvS5(40 * 4, height=2, width=2, kernel=5, **options), S5(40, **options)
    assert_close(ours.log_decay, s5.log_decay)
    assert_close(ours.frequency, s5.frequency)
    # sums over 5 by 5 taps; half of the unitary coordinates have half of the energy
    assert abs(ours.B.square().sum() / (64 / 2 * 40 * 25 * 2 / (40 * 25)) - 1) < 0.05
    assert abs(ours.C.square().sum() / (40 * 64 / 2 * 25 * 2 / (64 * 25)) - 1) < 0.05
    assert bool((ours.log_dt.exp() > 1e-3).all() & (ours.log_dt.exp() < 1e-1).all())


def test_a_moved_image_has_a_moved_result_away_from_the_border():
    layer = made(12, 10)
    frames = torch.zeros(1, 6, CHANNELS, 12, 10, dtype=torch.float64)
    frames[..., 3:6, 3:5] = noise(1, 6, CHANNELS, 3, 2)
    y, state = layer(frames.flatten(2))
    moved, moved_state = layer(frames.roll((3, 2), (3, 4)).flatten(2))
    back = moved.unflatten(2, frames.shape[2:]).roll((-3, -2), (3, 4))
    assert_close(back, y.unflatten(2, frames.shape[2:]))
    assert_close(moved_state.roll((-3, -2), (2, 3)), state)
    assert bool(y.unflatten(2, frames.shape[2:])[..., 1, :].any())


def test_a_repeated_frame_is_a_longer_one():
    layer, u = made(), noise(2, 5, *FRAME).flatten(2)
    _, whole = layer(u, rate=2.0)
    _, split = layer(u.repeat_interleave(2, 1))
    assert_close(split, whole)


def test_packed_sequences_at_uneven_times_are_separate():
    layer, u, dt = made(), noise(1, 7, *FRAME).flatten(2), torch.linspace(0.3, 2, 7).double()[None]
    reset = torch.arange(7)[None] == 3
    y, state = layer(u, dt=dt, reset=reset)
    assert_close(y[:, :3], layer(u[:, :3], dt=dt[:, :3])[0])
    assert_close((y[:, 3:], state), layer(u[:, 3:], dt=dt[:, 3:]))


def test_gradients():
    layer = made(2, 1, d_state=2, n_blocks=1)
    u, dt = noise(1, 3, 4).requires_grad_(), torch.tensor([[0.5, 1.0, 2.0]]).double()
    parameters = dict(layer.named_parameters())

    def run(u, dt, *values):
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, given, (u,), {"dt": dt})

    assert torch.autograd.gradcheck(run, (u, dt.requires_grad_(), *parameters.values()))
    regular = [u, None, *parameters.values()]
    assert torch.autograd.gradcheck(lambda u, *p: run(u, None, *p), (u, *regular[2:]))


def test_float32_is_as_exact_as_the_recurrence_in_float32():
    layer, frames, dt = made(), noise(2, 40, *FRAME).float(), torch.ones(2, 40)
    with torch.no_grad():
        layer.float()
        y, state = layer(frames.flatten(2))
        plain, plain_last = recurrence(layer, frames, dt)
        exact, exact_last = recurrence(layer.double(), frames.double(), dt.double())
    assert_within_reference_error(y.unflatten(2, FRAME), exact, plain)
    assert_within_reference_error(state, exact_last, plain_last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 3}, "a multiple of height .* d_model 8 with height 3 and width 1"),
        ({"width": 0}, "a multiple of height .* width 0"),
        ({"d_state": 6, "n_blocks": 2}, "an even multiple of n_blocks; got 6 and 2"),
        ({"kernel": 2}, "kernel must be odd, so that it has a centre; got 2"),
        ({"dt_min": 0.0}, "0 < dt_min"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ConvS5(8, **options)
