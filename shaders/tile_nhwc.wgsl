// How a tile of an NHWC product is staged: four neighbouring k of one pixel are a quad.
//
// Nothing turns them over into quads of pixels here: these would be written by four invocations, a component each, and
// writing a component may write the whole vector (as it does on Metal and Direct3D).

const_assert THREADS % TILE_PIXELS == 0u;

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    return place(first_pixel + local % TILE_PIXELS, group);
}

fn stage_pixels(k0: u32, located: Located, local: u32) {
    let pixel = local % TILE_PIXELS;
    for (var quad = local / TILE_PIXELS; quad < TILE_DEPTH / 4u; quad += THREADS / TILE_PIXELS) {
        pixel_tile[quad * TILE_PIXELS + pixel] = fetch(k0 + quad * 4u, located);
    }
}
