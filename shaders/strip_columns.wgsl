// The columns of a strip of outputs, and their stores.
//#
//# host     STRIP_WIDTH (outputs of a strip in a row), `outputs` (a list: their columns, counted from the first one's),
//#          LANES (channels of an invocation: one, two or four), BASES, SPAN and GROUP, which is 1 unless outputs come
//#          in pairs: strips of a wide tile of SPAN columns have BASES first columns, each GROUP columns after the one
//#          before. If BASES is 1, a strip is the tile, STRIP_WIDTH columns.

// The first column of a strip.
fn first_column(strip: u32) -> u32 {
    //% if BASES > 1
    return strip / ${BASES}u * ${SPAN}u + strip % ${BASES}u${" * 2u" if GROUP == 2 else ""};
    //% else
    return strip * ${STRIP_WIDTH}u;
    //% endif
}

// The sums of a strip in a row.
struct Sums {
    //% for x in range(STRIP_WIDTH)
    of${x}: Value,
    //% endfor
}

// Stores the sums of a strip in a row, the first at `out`. From there on the row has `columns`.
fn store_strip(out: u32, columns: u32, sums: Sums) {
    //% if output == "pair" and LANES == 1
    store_pair(out, sums.of0, sums.of1);
        //% for x in range(2, STRIP_WIDTH, 2)
    if ${outputs[x]}u < columns { store_pair(out + ${outputs[x]}u, sums.of${x}, sums.of${x + 1}); }
        //% endfor
    //% elif elements.output == "words" and output == "scalar" and layout == "nchw" and not transposed and BASES == 1
    // Four at a time, for two neighbours may be one word.
    let there = min(columns, ${STRIP_WIDTH}u);
        //% for first in range(0, STRIP_WIDTH, 4)
    if ${first}u < there {
        store_neighbours(out, ${first}u, there, vec4<f32>(
            //% for x in range(first, first + 4)
            sums.of${[x, STRIP_WIDTH - 1] | min},
            //% endfor
        ));
    }
        //% endfor
    //% else
    store_value(out, sums.of0);
        //% for x in range(1, STRIP_WIDTH)
    if ${outputs[x]}u < columns { store_value(out${plus(outputs[x], "out_pixel_stride()")}, sums.of${x}); }
        //% endfor
    //% endif
}

//% if elements.output == "words" and LANES == 1
// Stores four sums of a strip, those of them that are among its first `columns`.
fn store_neighbours(out: u32, first: u32, columns: u32, sums: vec4<f32>) {
    let x = first + vec4<u32>(0u, 1u, 2u, 3u);
    store4(out + min(x, vec4<u32>(columns - 1u)), x < vec4<u32>(columns), sums);
}

//% endif
fn store_value(at: u32, sum: Value) {
    //% if LANES == 1
    store(at, sum);
    //% elif output == "pair"
    store_pair(at * 2u, sum.x, sum.y);
    //% elif LANES == 2
    store(at * 2u, sum.x);
    store(at * 2u + 1u, sum.y);
    //% else
    store4(vec4<u32>(at * 4u), vec4<bool>(true), sum);
    //% endif
}
