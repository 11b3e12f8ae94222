// The biases, for passes that read nothing else of the weights.
//
// host     HAS_BIAS

@group(0) @binding(2) var<storage, read> weights: array<f32>;

fn bias_of(channel: u32) -> f32 {
    if HAS_BIAS {
        return weights[params.bias_at + channel];
    }
    return 0.0;
}
