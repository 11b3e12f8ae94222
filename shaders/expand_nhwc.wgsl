// How a fused inverted residual reads its input, NHWC: four channels of a pixel at a time.

fn input_at(image: u32, pixel: vec4<u32>) -> vec4<u32> {
    return (image * in_pixels() + pixel) * EXPAND_DEPTH;
}

fn add_products(sums: Expanded, at: vec4<u32>, channel: u32, weights_at: u32) -> Expanded {
    let a = load_input4(vec4<u32>(at.x + channel));
    let b = load_input4(vec4<u32>(at.y + channel));
    let c = load_input4(vec4<u32>(at.z + channel));
    let d = load_input4(vec4<u32>(at.w + channel));
    let weight = weights_at + channel * (TILE_DEPTH / 4u);
    let first = add_product(sums, vec4<f32>(a.x, b.x, c.x, d.x), weight);
    let second = add_product(first, vec4<f32>(a.y, b.y, c.y, d.y), weight + TILE_DEPTH / 4u);
    let third = add_product(second, vec4<f32>(a.z, b.z, c.z, d.z), weight + 2u * (TILE_DEPTH / 4u));
    return add_product(third, vec4<f32>(a.w, b.w, c.w, d.w), weight + 3u * (TILE_DEPTH / 4u));
}
