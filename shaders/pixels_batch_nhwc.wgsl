// Pixels of an NHWC product counted through the whole batch.

fn pixel_count() -> u32 {
    return params.batch * out_pixels();
}

fn output_pixel(pixel: u32) -> OutputPixel {
    return OutputPixel(pixel, pixel < pixel_count());
}
