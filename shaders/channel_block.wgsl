// What an invocation loads and stores that computes a block of output channels at some pixels of a row.
//#
//# host     BLOCK (channels, one or four); scales ("none", as without it, or "scalar"); `load_input`, `store`

//% set scaled = scales | default("none") != "none"
//% if scaled
// The input at a column of a row that starts at `row`, times a scale. Beside the image it is zero, even if the scale is
// infinite.
//% else
// The input at a column of a row that starts at `row`; zero beside the image.
//% endif
fn load_padded(row: u32, x: i32${", scale: f32" if scaled else ""}) -> f32 {
    let column = u32(clamp(x, 0, i32(params.in_width) - 1));
    //% set times = " * scale" if scaled else ""
    return select(0.0, load_input(row + column * in_pixel_stride())${times}, inside(x, params.in_width));
}

// Stores those of a block's channels that the group has.
fn store_block(at: u32, channels: u32, sum: ${"f32" if BLOCK == 1 else "vec4<f32>"}) {
    //% if BLOCK == 1
    store(at, sum);
    //% else
    let step = out_channel_stride();
    store(at, sum.x);
    if channels > 1u { store(at + step, sum.y); }
    if channels > 2u { store(at + 2u * step, sum.z); }
    if channels > 3u { store(at + 3u * step, sum.w); }
    //% endif
}
