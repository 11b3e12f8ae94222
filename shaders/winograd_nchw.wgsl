// The layout of Winograd's transformed tensors, NCHW: [point][channel][tile], tiles filled up to whole quads.

fn point_at(point: u32, channel: u32, channels: u32, tile: u32) -> u32 {
    let tiles = (params.batch * params.tiles_y * params.tiles_x + 3u) / 4u * 4u;
    return (point * channels + channel) * tiles + tile;
}
