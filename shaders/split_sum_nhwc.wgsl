// Where the slices' sums for an output are, NHWC.

struct PartialPlace {
    first: u32,
    step: u32,
    channel: u32,
}

fn partial_place(at: u32) -> PartialPlace {
    let channel = at % params.out_channels;
    return PartialPlace(at / params.out_channels * SLICES * params.out_channels + channel, params.out_channels, channel);
}
