// The layout of Winograd's transformed tensors, NHWC: [tile][point][channel].

fn point_at(point: u32, channel: u32, channels: u32, tile: u32) -> u32 {
    return (tile * LINE * LINE + point) * channels + channel;
}
