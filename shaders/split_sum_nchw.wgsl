// Where the slices' sums for an output are, NCHW.

struct PartialPlace {
    first: u32,
    step: u32,
    channel: u32,
}

fn partial_place(at: u32) -> PartialPlace {
    let step = params.out_channels * out_pixels();
    let image = at / step;
    return PartialPlace(image * SLICES * step + at % step, step, at % step / out_pixels());
}
