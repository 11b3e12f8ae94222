// Strides of NCHW tensors, in elements.

fn in_channel_stride() -> u32 { return in_pixels(); }
fn in_row_stride() -> u32 { return params.in_width; }
fn out_channel_stride() -> u32 { return out_pixels(); }
fn out_row_stride() -> u32 { return params.out_width; }
fn in_pixel_stride() -> u32 { return 1u; }
fn out_pixel_stride() -> u32 { return 1u; }

// What an invocation of a two-dimensional tiling computes; neighbours are neighbours along a row.
struct Item {
    x: u32,
    y: u32,
    channel: u32,
    batch: u32,
}

fn item(index: u32, channels: u32) -> Item {
    let row = index / params.tiles_x;
    let plane = row / params.tiles_y;
    return Item(index % params.tiles_x, row % params.tiles_y, plane % channels, plane / channels);
}
