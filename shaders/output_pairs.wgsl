// The output as pairs of neighbouring floats, for links without a residual.

@group(0) @binding(3) var<storage, read_write> output: array<u64>;

// Stores two sums; `at` is even.
fn store_pair(at: u32, first: f32, second: f32) {
    output[at / 2u] = pack_pair(vec2<f32>(epilogue(first, at), epilogue(second, at + 1u)));
}
