// The source of an implicit matrix product of few input channels, NHWC: what the kernel sees at an output. No im2col
// buffer is made (Chetlur et al., arXiv 1410.0759).
//
// An invocation stages a pixel. TILE_DEPTH of k are KERNEL_ROWS whole rows of the kernel, filled up to quads, so that
// all that depends on the tap is a constant.
//% if scales != "none"
// Each channel of an image is multiplied by its scale; padding stays zero.
//% endif
//#
//# host     geometry; input ("scalar"); scales ("scalar" or "none"); params.tiles_y and params.tiles_x (the output's
//#          height and width); of gemm_tile.wgsl TILE_DEPTH, TILE_PIXELS, THREADS and `pixel_tile`; KERNEL_ROWS (of a
//#          tile), GROUP_IN (channels)

const BLOCK_HEIGHT: u32 = 1u;
const BLOCK_WIDTH: u32 = 1u;
// It needs no workgroup memory of its own.
const SOURCE_QUADS: u32 = 0u;
const_assert THREADS == TILE_PIXELS;

// A row or a column of the input: where it is, and whether it is one at all, and not padding.
struct Line {
    at: u32,
    inside: bool,
}

struct Place {
    // Of the group's first channel.
    image: u32,
    top: i32,
    //% for kx in range(geometry.kernel_width)
    column${kx}: Line,
    //% endfor
    //% if scales != "none"
    // The scale of the group's first channel.
    scale_at: u32,
    //% endif
}

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    let pixel = min(first_pixel + local, pixel_count() - 1u);
    let row = pixel / params.tiles_x;
    let left = i32(pixel % params.tiles_x * STRIDE_X) - i32(PAD_LEFT);
    return Place(
        row / params.tiles_y * in_pixels() * params.in_channels + group * params.group_in,
        i32(row % params.tiles_y * STRIDE_Y) - i32(PAD_TOP),
        //% for kx in range(geometry.kernel_width)
        line(left${plus_signed(kx * geometry.dilation_x)}, params.in_width, params.in_channels),
        //% endfor
        //% if scales != "none"
        row / params.tiles_y * params.in_channels + group * params.group_in,
        //% endif
    );
}

fn line(coordinate: i32, extent: u32, distance: u32) -> Line {
    let inside = inside(coordinate, extent);
    return Line(select(0u, u32(coordinate), inside) * distance, inside);
}

//# All of a tile's k by number: a load, or zero behind the last.
//% set count = KERNEL_ROWS * geometry.kernel_width * GROUP_IN
fn stage_pixels(k0: u32, place: Place, local: u32) {
    let first_row = k0 / TILE_DEPTH * ${KERNEL_ROWS}u;
    //% for channel in range(GROUP_IN) if scales != "none"
    let scale${channel} = load_scale(place.scale_at${plus(channel)});
    //% endfor
    //% for row in range(KERNEL_ROWS)
    let top${row} = place.top + i32((first_row${plus(row)}) * DILATION_Y);
    let row${row} = line(top${row}, params.in_height, params.in_width * params.in_channels);
        //% for kx in range(geometry.kernel_width)
            //% set tap = row * geometry.kernel_width + kx
    let at${tap} = place.image + row${row}.at + place.column${kx}.at;
    let inside${tap} = row${row}.inside & place.column${kx}.inside;
            //% for channel in range(GROUP_IN)
                //% set times = "" if scales == "none" else " * scale" ~ channel
    let value${tap * GROUP_IN + channel} = select(0.0, load_input(at${tap}${plus(channel)})${times}, inside${tap});
            //% endfor
        //% endfor
    //% endfor
    //% for k in range(count, (count + 3) // 4 * 4)
    let value${k} = 0.0;
    //% endfor
    //% for k in range(0, count, 4)
    pixel_tile[${k // 4}u * TILE_PIXELS + local] = vec4<f32>(value${k}, value${k + 1}, value${k + 2}, value${k + 3});
    //% endfor
}
