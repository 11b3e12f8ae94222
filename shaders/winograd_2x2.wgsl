// The matrices of F(2x2, 3x3): 4x4 inputs for 2x2 outputs, with the points 0, 1, -1 and infinity.

fn input_line(d: array<f32, 4>) -> array<f32, 4> {
    return array<f32, 4>(d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]);
}

fn output_line(m: array<f32, 4>) -> array<f32, 2> {
    return array<f32, 2>(m[0] + m[1] + m[2], m[1] - m[2] - m[3]);
}
