// How a fused inverted residual reads its input, NCHW: four neighbours of a channel at a time.

fn input_at(image: u32, pixel: vec4<u32>) -> vec4<u32> {
    return image * EXPAND_DEPTH * in_pixels() + pixel;
}

fn add_products(sums: Expanded, at: vec4<u32>, channel: u32, weights_at: u32) -> Expanded {
    var sum = sums;
    for (var step = 0u; step < EXPAND_STEP; step++) {
        let values = load_input4(at + (channel + step) * in_pixels());
        sum = add_product(sum, values, weights_at + (channel + step) * (TILE_DEPTH / 4u));
    }
    return sum;
}
