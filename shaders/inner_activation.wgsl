// The activations between the links of a fused run.
//#
//# host     inner_activations, a list of
//#              name        the functions are activate_NAME4 and activate_NAME_pixel
//#              activation  "clamp", or one of those that output.wgsl has
//#              slope       of a "leaky_relu", as a literal
//#              low, high   what a clamp clamps to, as literals of f32; none where there is no bound
//#              quads       of channels that activate_NAME_pixel takes
//#              high_bits   the bits of `high`, if the channels of a pixel share their NaNs; or none

//% for inner in inner_activations
//% set name = "activate_" ~ inner.name
fn ${name}4(x: vec4<f32>) -> vec4<f32> {
    //% if inner.activation == "clamp"
        //% if inner.low and inner.high
    return or_nan4(min(max(x, vec4<f32>(${inner.low})), vec4<f32>(${inner.high})), x);
        //% elif inner.low or inner.high
    return or_nan4(${"max" if inner.low else "min"}(x, vec4<f32>(${inner.low or inner.high})), x);
        //% else
    return x;
        //% endif
    //% elif inner.activation == "leaky_relu"
    return leaky_relu4(x, vec4<f32>(${inner.slope}));
    //% else
    return ${inner.activation}4(x);
    //% endif
}

//% if inner.high_bits
// Activates channels of one pixel, all of which are added up in the end.
//
// A clamp between zero and ${inner.high or "infinity"} compares bits as integers. That takes fewer instructions than
// keeping each NaN, but makes a number of a NaN. So if any of the channels is NaN, the first becomes one again. That is
// as good as each, for what is made of one of them is made of all. The sum of their magnitudes is NaN only then, since
// nothing is subtracted from an infinity.
//% else
// Activates channels of one pixel.
//% endif
fn ${name}_pixel(
    //% for quad in range(inner.quads)
    quad${quad}: ptr<function, vec4<f32>>,
    //% endfor
) {
    //% if inner.high_bits
    let sizes0 = abs(*quad0);
        //% for quad in range(1, inner.quads)
    let sizes${quad} = sizes${quad - 1} + abs(*quad${quad});
        //% endfor
        //% set sizes = "sizes" ~ (inner.quads - 1)
    let size = (${sizes}.x + ${sizes}.y) + (${sizes}.z + ${sizes}.w);
        //% for quad in range(inner.quads)
    *quad${quad} = clamp_bits(*quad${quad}, ${inner.high_bits}i);
        //% endfor
    (*quad0).x = select((*quad0).x, size, is_nan(size));
    //% else
        //% for quad in range(inner.quads)
    *quad${quad} = ${name}4(*quad${quad});
        //% endfor
    //% endif
}

//% endfor
// A clamp between zero and the number with these bits, as integers: negative numbers are negative integers.
fn clamp_bits(x: vec4<f32>, high: i32) -> vec4<f32> {
    return bitcast<vec4<f32>>(clamp(bitcast<vec4<i32>>(x), vec4<i32>(0), vec4<i32>(high)));
}

// Whether a sum of magnitudes is NaN: its bits are larger than those of infinity.
fn is_nan(size: f32) -> bool {
    return bitcast<u32>(size) > 0x7f800000u;
}
