// Where the outputs of a 2x2 tile go: all four at once.

fn store_tile(tile: Tile, sums: array<array<f32, 2>, 2>, bias: f32) {
    let y = tile.y + vec4<u32>(0u, 0u, 1u, 1u);
    let x = tile.x + vec4<u32>(0u, 1u, 0u, 1u);
    let rows = min(y, vec4<u32>(params.out_height - 1u)) - tile.y;
    let columns = min(x, vec4<u32>(params.out_width - 1u)) - tile.x;
    let valid = (y < vec4<u32>(params.out_height)) & (x < vec4<u32>(params.out_width));
    let values = vec4<f32>(sums[0][0], sums[0][1], sums[1][0], sums[1][1]);
    store4(tile.output + rows * out_row_stride() + columns * out_pixel_stride(), valid, values + bias);
}
