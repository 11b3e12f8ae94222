// Clamps as comparisons of integers, and NaNs beside them.

// A clamp between zero and the number with these bits, as integers: negative numbers are negative integers.
fn clamp_bits(x: vec4<f32>, high: i32) -> vec4<f32> {
    return bitcast<vec4<f32>>(clamp(bitcast<vec4<i32>>(x), vec4<i32>(0), vec4<i32>(high)));
}

// The bits that make a NaN of any number, if one of the numbers with these largest bits is one; else none. A NaN has
// larger bits than infinity; with a sign, larger ones than negative infinity.
fn nan_bits(signed: vec4<i32>, unsigned: vec4<u32>) -> u32 {
    let positive = max(max(max(signed.x, signed.y), signed.z), signed.w);
    let negative = max(max(max(unsigned.x, unsigned.y), unsigned.z), unsigned.w);
    return select(0u, 0x7fc00000u, (positive > 0x7f800000i) | (negative > 0xff800000u));
}
