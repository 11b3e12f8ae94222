// How a tile of an NCHW product is staged: four neighbouring pixels of one k are a quad.

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    return place(first_pixel + local % PIXEL_QUADS * 4u, group);
}

fn stage_pixels(k0: u32, located: Located, local: u32) {
    let quad = local % PIXEL_QUADS;
    for (var k = local / PIXEL_QUADS; k < TILE_DEPTH; k += THREADS / PIXEL_QUADS) {
        pixel_tile[k * PIXEL_QUADS + quad] = fetch(k0 + k, located);
    }
}
