// How a tile of an NHWC product is staged: an invocation reads four neighbouring k of one pixel, and turns
// them into the columns of the tile.

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    return place(first_pixel + local % TILE_PIXELS, group);
}

fn stage_pixels(k0: u32, located: Located, local: u32) {
    let pixel = local % TILE_PIXELS;
    for (var k = local / TILE_PIXELS * 4u; k < TILE_DEPTH; k += THREADS / TILE_PIXELS * 4u) {
        let values = fetch(k0 + k, located);
        pixel_tile[k * PIXEL_QUADS + pixel / 4u][pixel % 4u] = values.x;
        pixel_tile[(k + 1u) * PIXEL_QUADS + pixel / 4u][pixel % 4u] = values.y;
        pixel_tile[(k + 2u) * PIXEL_QUADS + pixel / 4u][pixel % 4u] = values.z;
        pixel_tile[(k + 3u) * PIXEL_QUADS + pixel / 4u][pixel % 4u] = values.w;
    }
}
