// Where the outputs of a 4x4 tile go, row by row.

fn store_tile(tile: Tile, sums: array<array<f32, 4>, 4>, bias: f32) {
    store_row(tile, 0u, sums[0], bias);
    store_row(tile, 1u, sums[1], bias);
    store_row(tile, 2u, sums[2], bias);
    store_row(tile, 3u, sums[3], bias);
}

fn store_row(tile: Tile, row: u32, sums: array<f32, 4>, bias: f32) {
    if tile.y + row < params.out_height {
        let x = tile.x + vec4<u32>(0u, 1u, 2u, 3u);
        let columns = min(x, vec4<u32>(params.out_width - 1u)) - tile.x;
        let values = vec4<f32>(sums[0], sums[1], sums[2], sums[3]);
        let at = tile.output + row * out_row_stride() + columns * out_pixel_stride();
        store4(at, x < vec4<u32>(params.out_width), values + bias);
    }
}
