// From the sums of a product, which come a tile of pixels at a time, to the mean of each channel.
//#
//# host     layout, bias and what output.wgsl asks for, without a residual, `output` "scalar"; of gemm_tile.wgsl its
//#          tile, its slices and `pixel_tile`; params.bias_at (elements)

//% set PLACES = TILE_PIXELS // MICRO_PIXELS
// Invocations that share a channel.
const PLACES: u32 = ${PLACES}u;

// What an invocation has of the sums of its channels' pixels, in quads of channels.
struct ChannelSums {
    //% for quad in range(MICRO_CHANNELS // 4)
    quad${quad}: vec4<f32>,
    //% endfor
}

//% if SLICES > 1
// Adds the sums of the other slices to those of the first, one after the other. `place` is the place in a slice.
fn add_slices(sums: ptr<function, MicroTile>, slice: u32, place: u32) {
    //% for other in range(1, SLICES)
        //% if other > 1
    workgroupBarrier();
        //% endif
    if slice == ${other}u {
        //% for row in range(ROWS)
            //% for quad in range(QUADS)
        pixel_tile[place${plus(row * QUADS + quad, "SLICE_THREADS")}] = (*sums).sum_row${row}_quad${quad};
            //% endfor
        //% endfor
    }
    workgroupBarrier();
    if slice == 0u {
        //% for row in range(ROWS)
            //% for quad in range(QUADS)
        (*sums).sum_row${row}_quad${quad} += pixel_tile[place${plus(row * QUADS + quad, "SLICE_THREADS")}];
            //% endfor
        //% endfor
    }
    //% endfor
}
//% endif

// Adds what the activation makes of a tile that begins with pixel `first` of the image, but for what lies behind it.
fn add_pixels(
    channel_sums: ptr<function, ChannelSums>,
    sums: ptr<function, MicroTile>,
    first: u32,
    first_channel: u32,
    row: u32,
    column: u32,
) {
    //% if layout == "nchw"
        //% if bias
            //% for quad in range(ROWS // 4)
    let biases${quad} = bias4_of(first_channel + row * ${ROWS}u${plus(quad * 4)});
            //% endfor
        //% endif
        //% for quad in range(QUADS)
    let pixels${quad} = vec4<u32>(first + (column${plus(quad * COLUMNS)}) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let inside${quad} = pixels${quad} < vec4<u32>(out_pixels());
            //% for channels in range(ROWS // 4)
    (*channel_sums).quad${channels} += vec4<f32>(
                //% for next in range(4)
                    //% set sum = "(*sums).sum_row" ~ (channels * 4 + next) ~ "_quad" ~ quad
                    //% set bias_of_row = (" + biases" ~ channels ~ "." ~ xyzw[next]) if bias else ""
        pixel_sum(${sum}${bias_of_row}, inside${quad}),
                //% endfor
    );
            //% endfor
        //% endfor
    //% else
        //% for quad in range(QUADS)
            //% if bias
    let biases${quad} = bias4_of(first_channel + (column${plus(quad * COLUMNS)}) * 4u);
            //% endif
            //% for row in range(ROWS)
                //% set sum = "(*sums).sum_row" ~ row ~ "_quad" ~ quad ~ ".wzyx" ~ (" + biases" ~ quad if bias else "")
    if first + row${plus(row * TILE_PIXELS // ROWS)} < out_pixels() {
        (*channel_sums).quad${quad} += activate4(${sum});
    }
            //% endfor
        //% endfor
    //% endif
}

// What four pixels of a channel add, those of the image.
fn pixel_sum(sums: vec4<f32>, inside: vec4<bool>) -> f32 {
    let values = select(vec4<f32>(0.0), activate4(sums), inside);
    return (values.x + values.y) + (values.z + values.w);
}

const_assert PLACES * CHANNEL_QUADS <= TILE_DEPTH * PIXEL_QUADS;

// Adds up what the invocations have, and stores the means.
fn finish(
    channel_sums: ptr<function, ChannelSums>,
    image: u32,
    first_channel: u32,
    row: u32,
    column: u32,
    local: u32,
) {
    // [place][quad of channels]
    //% set indent = "    " if SLICES > 1 else ""
    //% if SLICES > 1
    if local < SLICE_THREADS {
    //% endif
    //% for quad in range(MICRO_CHANNELS // 4)
        //% if layout == "nchw"
    ${indent}pixel_tile[column * CHANNEL_QUADS + row * ${ROWS // 4}u${plus(quad)}] = (*channel_sums).quad${quad};
        //% else
    ${indent}pixel_tile[row * CHANNEL_QUADS + column${plus(quad * COLUMNS)}] = (*channel_sums).quad${quad};
        //% endif
    //% endfor
    //% if SLICES > 1
    }
    //% endif
    workgroupBarrier();
    if local < CHANNEL_QUADS {
        var sum = pixel_tile[local];
        for (var place = 1u; place < PLACES; place++) {
            sum += pixel_tile[place * CHANNEL_QUADS + local];
        }
        let channels = vec4<u32>(first_channel + local * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let inside = channels < vec4<u32>(params.out_channels);
        store_values(image * params.out_channels + channels, inside, sum / f32(out_pixels()));
    }
}
