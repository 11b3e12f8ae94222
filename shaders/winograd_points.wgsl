// Where a point of a tile is in Winograd's transformed tensors.
//% if layout == "nchw"
// They are [point][channel][tile], the tiles filled up to whole quads.
//% else
// They are [tile][point][channel].
//% endif
//#
//# host     layout; LINE (points in a row of a tile); params.tiles_x, params.tiles_y (tiles of an image)

fn point_at(point: u32, channel: u32, channels: u32, tile: u32) -> u32 {
    //% if layout == "nchw"
    let tiles = (params.batch * params.tiles_y * params.tiles_x + 3u) / 4u * 4u;
    return (point * channels + channel) * tiles + tile;
    //% else
    return (tile * LINE * LINE + point) * channels + channel;
    //% endif
}
