"""Functions that the kernels share on the device: activations, the epilogue, which pixel a token is."""

import triton
import triton.language as tl

from mobilevit_fast.kernels.triton.backend import INTERPRETING

INTERPRETED = tl.constexpr(INTERPRETING)


@triton.jit
def aligned(size, ALIGN: tl.constexpr):
    """``size``, a multiple of ALIGN, as the compiler can tell: so many neighbouring elements are one load."""
    return size // ALIGN * ALIGN


@triton.jit
def product(a, b, sums, INPUT_PRECISION: tl.constexpr):
    """sums + a · b, float32; the interpreter has no products of bfloat16, whose products are exact in float32."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=INPUT_PRECISION)


@triton.jit
def rounded(x, DTYPE: tl.constexpr):
    """Float32 numbers in another type, rounded to nearest even; the interpreter only cuts what bfloat16 has not."""
    if INTERPRETED and DTYPE is tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
        x = tl.where(x == x, nearest, x)
    return x.to(DTYPE)


@triton.jit
def activate(y, ACTIVATION: tl.constexpr):
    """An activation of float32 numbers; not a number stays so, as in PyTorch."""
    if ACTIVATION == "relu":
        y = tl.where(y < 0, 0.0, y)
    elif ACTIVATION == "silu":
        y = y / (1.0 + tl.exp(-y))
    else:
        tl.static_assert(ACTIVATION == "none", "expected none, relu or silu")
    return y


@triton.jit
def per_channel(ptr, channels, num_channels):
    """Parameters of a run of channels in float32, zero beyond the last."""
    return tl.load(ptr + channels, mask=channels < num_channels, other=0.0).to(tl.float32)


@triton.jit
def epilogue(y, scale_ptr, bias_ptr, channels, num_channels, ACTIVATION: tl.constexpr):
    """activation(scale·y + bias) over the columns of ``y`` (rows, channels); a pointer may be None."""
    if scale_ptr is not None:
        y *= per_channel(scale_ptr, channels, num_channels)[None, :]
    if bias_ptr is not None:
        y += per_channel(bias_ptr, channels, num_channels)[None, :]
    return activate(y, ACTIVATION)


@triton.jit
def load_tile(ptr, rows, row_stride, row_mask, columns, num_columns):
    """Rows and columns of a matrix whose rows are ``row_stride`` apart, zero outside."""
    mask = row_mask[:, None] & (columns < num_columns)[None, :]
    return tl.load(ptr + rows[:, None].to(tl.int64) * row_stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def load_weight(ptr, inputs, num_inputs, outputs, num_outputs, row_stride):
    """The part (inputs, outputs) of a weight stored (outputs, inputs) with rows ``row_stride`` apart, zero outside."""
    mask = (inputs < num_inputs)[:, None] & (outputs < num_outputs)[None, :]
    return tl.load(ptr + outputs[None, :] * row_stride + inputs[:, None], mask=mask, other=0.0)


@triton.jit
def token_pixel(token, tokens, columns, height, width, PATCH_H: tl.constexpr, PATCH_W: tl.constexpr):
    """The pixel of a token, counted sequence after sequence of ``tokens`` tokens each, ``columns`` in a row of patches.

    Token n of the sequence at position (i, j) of the patches is pixel (ph·(n // columns) + i, pw·(n % columns) + j).
    """
    sequence, n = token // tokens, token % tokens
    image, position = sequence // (PATCH_H * PATCH_W), sequence % (PATCH_H * PATCH_W)
    h = n // columns * PATCH_H + position // PATCH_W
    w = n % columns * PATCH_W + position % PATCH_W
    return (image * height + h) * width + w
