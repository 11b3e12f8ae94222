// Where the slices' sums for an output are, NHWC.

struct PartialPlace {
    first: u32,
    step: u32,
    channel: u32,
}

fn partial_place(at: u32) -> PartialPlace {
    let channel = at % OUT_CHANNELS;
    return PartialPlace(at / OUT_CHANNELS * SLICES * OUT_CHANNELS + channel, OUT_CHANNELS, channel);
}
