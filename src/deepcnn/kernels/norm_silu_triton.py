"""The programs that `speednet_gpu` starts on a GPU; see there.

Each program works on tiles of pixels and channels. Values of type `tl.constexpr` are compiled in:
`POOL`, whether maxima of four pixels are taken first; `SHORTCUT`, whether something is added before
SiLU; and the sizes of tiles.
"""

import triton
import triton.language as tl

# What differs from layer to layer, for which nothing need be compiled anew.
SIZES = ["pixels", "height", "width", "tiles", "programs", "each"]


@triton.jit
def _first_sums(
    tile,
    images,
    taps,
    bias,
    pixels,
    height,
    width,
    filters,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    FILTERS: tl.constexpr,
):
    """Return a tile of a 2×2 convolution, where it lies, and where it has values."""
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    filter = tl.program_id(1) * FILTERS + tl.arange(0, FILTERS)
    there = pixel < pixels
    down, across = height - 1, width - 1
    image, rest = pixel // (down * across), pixel % (down * across)
    corner = ((image * height + rest // across) * width + rest % across).to(tl.int64) * CHANNELS
    z = tl.zeros([PIXELS, FILTERS], tl.float32)
    z += tl.load(bias + filter)[None, :]
    for row in tl.static_range(2):
        for k in tl.static_range(2 * CHANNELS):  # of two neighbours in a row, one after the other
            value = tl.load(images + corner + row * width * CHANNELS + k, there, other=0.0)
            weights = tl.load(taps + (row * 2 * CHANNELS + k) * filters + filter)
            z += value[:, None] * weights[None, :]
    at = pixel.to(tl.int64)[:, None] * filters + filter[None, :]
    return z, at, there[:, None]


@triton.jit(do_not_specialize=SIZES)
def first_silu(
    images,
    taps,
    bias,
    out,
    pixels,
    height,
    width,
    filters,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    FILTERS: tl.constexpr,
):
    """Write a tile of the first layer."""
    z, at, inside = _first_sums(
        tl.program_id(0),
        images,
        taps,
        bias,
        pixels,
        height,
        width,
        filters,
        CHANNELS,
        PIXELS,
        FILTERS,
    )
    tl.store(out + at, z * tl.sigmoid(z), inside)


@triton.jit(do_not_specialize=SIZES)
def first_gradient(
    images,
    taps,
    bias,
    gradient,
    partial,
    pixels,
    height,
    width,
    filters,
    tiles,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    FILTERS: tl.constexpr,
):
    """Sum up the gradient of the bias over each program's tiles, which are computed again."""
    total = tl.zeros([PIXELS, FILTERS], tl.float32)
    tile = tl.program_id(0) * tiles
    while tile < tl.program_id(0) * tiles + tiles:
        z, at, inside = _first_sums(
            tile,
            images,
            taps,
            bias,
            pixels,
            height,
            width,
            filters,
            CHANNELS,
            PIXELS,
            FILTERS,
        )
        total += _gradient_of_sum(gradient, z, at, inside)
        tile += 1
    filter = tl.program_id(1) * FILTERS + tl.arange(0, FILTERS)
    tl.store(partial + tl.program_id(0) * filters + filter, tl.sum(total, 0))


@triton.jit
def _tile_of(tile, channels, pixels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return a tile's pixels and channels, where it has values, and where they lie."""
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    at = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    return pixel, channel, inside, at


@triton.jit
def _first_of_four(pixel, height, width):
    """Return the first of the pixels whose maximum is a pixel of the pooled image."""
    down, across = height // 2, width // 2
    image, rest = pixel // (down * across), pixel % (down * across)
    return (image * height + 2 * (rest // across)) * width + 2 * (rest % across)


@triton.jit
def _maxima(y, pixel, channel, inside, height, width, channels):
    """Return maxima of four pixels, and which of the four each is; NaN counts as the largest."""
    at = _first_of_four(pixel, height, width).to(tl.int64)[:, None] * channels + channel[None, :]
    largest = tl.load(y + at, inside, other=0.0).to(tl.float32)
    which = tl.zeros(largest.shape, tl.int32)
    for k in tl.static_range(1, 4):
        value = tl.load(y + at + ((k // 2) * width + k % 2) * channels, inside, other=0.0)
        value = value.to(tl.float32)
        larger = (value > largest) | (value != value)
        largest = tl.where(larger, value, largest)
        which = tl.where(larger, k, which)
    return largest, which


@triton.jit(do_not_specialize=SIZES)
def pool_and_measure(
    y,
    pooled,
    which,
    partial,
    pixels,
    height,
    width,
    channels,
    tiles,
    POOL: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Pool, and find the mean of each program's pixels and the sum of squares about it.

    Sums are taken of the differences from a first value, so that little cancels. (Chan, Golub,
    LeVeque: "Algorithms for computing the sample variance", 1983.)
    """
    first = tl.program_id(0) * tiles
    pixel, channel, _, _ = _tile_of(first, channels, pixels, PIXELS, CHANNELS)
    here = channel < channels
    start = tl.min(pixel, 0)
    if POOL:
        start = _first_of_four(start, height, width)
    middle = tl.load(y + start.to(tl.int64) * channels + channel, here, other=0.0).to(tl.float32)
    sums = tl.zeros([PIXELS, CHANNELS], tl.float32)
    squares = tl.zeros([PIXELS, CHANNELS], tl.float32)
    tile = first
    while tile < first + tiles:
        pixel, channel, inside, at = _tile_of(tile, channels, pixels, PIXELS, CHANNELS)
        if POOL:
            x, k = _maxima(y, pixel, channel, inside, height, width, channels)
            tl.store(pooled + at, x, inside)
            tl.store(which + at, k, inside)
        else:
            x = tl.load(y + at, inside, other=0.0).to(tl.float32)
        away = tl.where(inside, x - middle[None, :], 0.0)
        sums += away
        squares += away * away
        tile += 1
    count = tl.minimum(pixels - first * PIXELS, tiles * PIXELS).to(tl.float32)
    total = tl.sum(sums, 0)
    at = 2 * tl.program_id(0) * channels + channel
    tl.store(partial + at, middle + total / count, here)
    tl.store(partial + at + channels, tl.sum(squares, 0) - total * total / count, here)


@triton.jit(do_not_specialize=SIZES)
def conclude(
    partial,
    moments,
    running_mean,
    running_var,
    batches,
    pixels,
    channels,
    programs,
    each,
    eps,
    momentum,
    PROGRAMS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine what programs measured, of `each` pixels, and update what is kept between batches."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    program = tl.arange(0, PROGRAMS)
    inside = (program < programs)[:, None] & (channel < channels)[None, :]
    at = 2 * program[:, None] * channels + channel[None, :]
    means = tl.load(partial + at, inside, other=0.0)
    squares = tl.load(partial + at + channels, inside, other=0.0)
    counts = tl.minimum(tl.maximum(pixels - program * each, 0), each).to(tl.float32)[:, None]
    mean = tl.sum(means * counts, 0) / pixels
    away = means - mean[None, :]
    total = tl.sum(squares + away * away * counts, 0)
    here = channel < channels
    tl.store(moments + channel, mean, here)
    tl.store(moments + channels + channel, 1.0 / tl.sqrt(total / pixels + eps), here)
    before = tl.load(running_mean + channel, here)
    tl.store(running_mean + channel, before + momentum * (mean - before), here)
    before = tl.load(running_var + channel, here)
    unbiased = total / tl.maximum(pixels - 1, 1)
    tl.store(running_var + channel, before + momentum * (unbiased - before), here)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=SIZES)
def normalize_silu(
    y,
    out,
    mean,
    scale,
    weight,
    bias,
    shortcut,
    pixels,
    height,
    width,
    channels,
    POOL: tl.constexpr,
    SHORTCUT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the result."""
    pixel, channel, inside, at = _tile_of(tl.program_id(0), channels, pixels, PIXELS, CHANNELS)
    if POOL:
        x, _ = _maxima(y, pixel, channel, inside, height, width, channels)
    else:
        x = tl.load(y + at, inside, other=0.0).to(tl.float32)
    _, _, z = _seen(x, mean, scale, weight, bias, channel, channels, shortcut, at, inside, SHORTCUT)
    tl.store(out + at, z * tl.sigmoid(z), inside)


@triton.jit
def _seen(
    x, mean, scale, weight, bias, channel, channels, shortcut, at, inside, SHORTCUT: tl.constexpr
):
    """Return values minus their mean, the factors that multiply them, and the input of SiLU."""
    here = channel < channels
    away = x - tl.load(mean + channel, here, other=0.0)[None, :]
    by = tl.load(scale + channel, here, other=0.0) * tl.load(weight + channel, here, other=0.0)
    z = away * by[None, :] + tl.load(bias + channel, here, other=0.0)[None, :]
    if SHORTCUT:
        z += tl.load(shortcut + at, inside, other=0.0).to(tl.float32)
    return away, by, z


@triton.jit
def _gradient_of_sum(gradient, z, at, inside):
    """Return the gradient of the input of SiLU."""
    s = tl.sigmoid(z)
    slope = s + z * s * (1.0 - s)
    return tl.load(gradient + at, inside, other=0.0).to(tl.float32) * slope


@triton.jit(do_not_specialize=SIZES)
def measure_gradient(
    gradient,
    x,
    mean,
    scale,
    weight,
    bias,
    shortcut,
    partial,
    pixels,
    channels,
    tiles,
    SHORTCUT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Sum up the gradient and its product with `away`, over each program's pixels."""
    of_bias = tl.zeros([PIXELS, CHANNELS], tl.float32)
    of_scale = tl.zeros([PIXELS, CHANNELS], tl.float32)
    program = tl.program_id(0)
    tile = program * tiles
    while tile < program * tiles + tiles:
        _, channel, inside, at = _tile_of(tile, channels, pixels, PIXELS, CHANNELS)
        values = tl.load(x + at, inside, other=0.0).to(tl.float32)
        away, _, z = _seen(
            values, mean, scale, weight, bias, channel, channels, shortcut, at, inside, SHORTCUT
        )
        of_sum = _gradient_of_sum(gradient, z, at, inside)
        of_bias += of_sum
        of_scale += of_sum * away
        tile += 1
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at = 2 * program * channels + channel
    tl.store(partial + at, tl.sum(of_bias, 0), channel < channels)
    tl.store(partial + at + channels, tl.sum(of_scale, 0), channel < channels)


@triton.jit(do_not_specialize=SIZES)
def add_up(partial, sums, columns, programs, PROGRAMS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add up the programs' sums."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    program = tl.arange(0, PROGRAMS)
    inside = (program < programs)[:, None] & (column < columns)[None, :]
    some = tl.load(partial + program[:, None] * columns + column[None, :], inside, other=0.0)
    tl.store(sums + column, tl.sum(some, 0), column < columns)


@triton.jit(do_not_specialize=SIZES)
def spread_gradient(
    gradient,
    x,
    mean,
    scale,
    weight,
    bias,
    shortcut,
    sums,
    which,
    of_y,
    of_shortcut,
    pixels,
    height,
    width,
    channels,
    POOL: tl.constexpr,
    SHORTCUT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradient of each value, and zeros for all that were not a maximum."""
    pixel, channel, inside, at = _tile_of(tl.program_id(0), channels, pixels, PIXELS, CHANNELS)
    here = channel < channels
    values = tl.load(x + at, inside, other=0.0).to(tl.float32)
    away, by, z = _seen(
        values, mean, scale, weight, bias, channel, channels, shortcut, at, inside, SHORTCUT
    )
    of_sum = _gradient_of_sum(gradient, z, at, inside)
    if SHORTCUT:
        tl.store(of_shortcut + at, of_sum, inside)
    share = 1.0 / pixels
    of_mean = tl.load(sums + channel, here, other=0.0) * share
    of_deviation = tl.load(sums + channels + channel, here, other=0.0) * share
    normal = tl.load(scale + channel, here, other=0.0)
    of_deviation *= normal * normal
    of_x = by[None, :] * (of_sum - of_mean[None, :] - away * of_deviation[None, :])
    if POOL:
        k = tl.load(which + at, inside, other=0).to(tl.int32)
        first = _first_of_four(pixel, height, width)
        to = first.to(tl.int64)[:, None] * channels + channel[None, :]
        for other in tl.static_range(4):
            far = ((other // 2) * width + other % 2) * channels
            tl.store(of_y + to + far, tl.where(k == other, of_x, 0.0), inside)
        column, row = first % width, (first // width) % height
        zero = tl.zeros(of_x.shape, tl.float32)
        right = inside & (column == width - 3)[:, None]  # a last odd column follows
        below = inside & (row == height - 3)[:, None]
        for other in tl.static_range(2):
            tl.store(of_y + to + (other * width + 2) * channels, zero, right)
            tl.store(of_y + to + (2 * width + other) * channels, zero, below)
        tl.store(of_y + to + (2 * width + 2) * channels, zero, right & below)
    else:
        tl.store(of_y + at, of_x, inside)
