// Two neighbouring floats as one 64-bit integer, the first in the lower half.

fn unpack_pair(pair: u64) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(u32(pair), u32(pair >> 32u)));
}

fn pack_pair(values: vec2<f32>) -> u64 {
    let bits = bitcast<vec2<u32>>(values);
    return u64(bits.x) | (u64(bits.y) << 32u);
}
