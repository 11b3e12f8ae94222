// Strides of NHWC tensors, in elements.

fn in_channel_stride() -> u32 { return 1u; }
fn in_row_stride() -> u32 { return params.in_width * params.in_channels; }
fn out_channel_stride() -> u32 { return 1u; }
fn out_row_stride() -> u32 { return params.out_width * params.out_channels; }
fn in_pixel_stride() -> u32 { return params.in_channels; }
fn out_pixel_stride() -> u32 { return params.out_channels; }

// What an invocation of a two-dimensional tiling computes; neighbours are neighbouring channels.
struct Item {
    x: u32,
    y: u32,
    channel: u32,
    batch: u32,
}

fn item(index: u32, channels: u32) -> Item {
    let tile = index / channels;
    let row = tile / params.tiles_x;
    return Item(tile % params.tiles_x, row % params.tiles_y, index % channels, row / params.tiles_y);
}
