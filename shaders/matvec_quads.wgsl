// The weights of a product with vectors, in quads of four output channels.

// Where a panel starts.
fn panel_quads(panel: u32) -> u32 {
    return (params.weights_at + panel * params.padded_depth * TILE_CHANNELS) / 4u;
}

// The weights of four channels, a column for each of four k.
fn load_weights(at: u32) -> mat4x4<f32> {
    const NEXT = TILE_CHANNELS / 4u;
    return mat4x4<f32>(load_weight(at), load_weight(at + NEXT), load_weight(at + 2u * NEXT), load_weight(at + 3u * NEXT));
}
